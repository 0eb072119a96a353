import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from resnetlab.models.init import build
from resnetlab.models.summary import count_multiply_adds, saved_bytes, summarise, trace
from resnetlab.models.zoo import model_config


def test_multiply_adds_of_a_layer_are_those_counted_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)).to("meta")
    assert count_multiply_adds(net, (3, 8, 8)) == 4 * 4 * 8 * 3 * 9 + 128 * 5


@pytest.mark.parametrize("name", ["cifar_preact_resnet20", "mlp_resnet8", "seresnet50", "resnext50d_32x4d", "vgg11"])
def test_multiply_adds_are_half_of_the_flops_that_torch_counts(name):
    config = model_config(name)
    net, image = build(config, seed=0, device="meta").eval(), (config.in_chans, config.image_size, config.image_size)
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, *image, device="meta"))
    assert summarise(config).multiply_adds == counter.get_total_flops() // 2


def really_saved(net: nn.Module, image: tuple[int, ...], batch: int) -> int:
    """Bytes that autograd keeps of a real step on the CPU, told apart by address."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    sizes: dict[int, int] = {}
    keep_alive = []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            keep_alive.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = net.train()(torch.randn(batch, *image))
    assert output.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_plain56", "mlp_resnet34"])
def test_saved_bytes_on_meta_equal_those_of_a_real_step(name):
    config = model_config(name)
    image = (config.in_chans, config.image_size, config.image_size)
    net = build(config, seed=0)
    real = really_saved(net, image, batch=3) - really_saved(net, image, batch=2)
    assert summarise(config).saved_bytes == real


def test_counting_leaves_the_mode_of_the_network_alone():
    config = model_config("cifar_resnet8")
    net = build(config, seed=0, device="meta").eval()
    saved_bytes(net, (3, 32, 32), batch=2)
    assert not net.training
    trace(net, (3, 32, 32))
    assert not net._forward_hooks


def test_layers_of_a_block_have_the_side_of_its_output():
    """The first convolution of this bottleneck gives a map of 32 pixels; others have the side of their own output."""
    summary = summarise(model_config("resnet50", stem="cifar", depths=(1, 1), widths=(8, 16), image_size=32))
    sides = {layer.name: layer.side for layer in summary.layers}
    assert [sides[f"stages.1.0.branch.conv{number}"] for number in (1, 2, 3)] == [16, 16, 16]
    assert (sides["stem.conv"], sides["stages.0.0.branch.conv1"], sides["head"]) == (32, 32, 1)


def test_projections_are_no_part_of_the_depth():
    summary = summarise(model_config("resnet34", shortcut="C"))
    assert summary.weight_layers == 34
    assert sum(layer.on_shortcut for layer in summary.layers) == 16


@pytest.mark.long
def test_summary_of_1202_layers_takes_no_memory_for_weights():
    summary = summarise(model_config("cifar_resnet1202"))
    assert summary.weight_layers == 1202
    assert summary.saved_bytes / 2**20 == pytest.approx(87.98, rel=0.005)
