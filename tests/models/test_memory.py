"""Predictions against what autograd keeps, and what torch allocates, in a real step on the CPU."""

from typing import get_args

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from resnetlab.core.errors import ConfigError
from resnetlab.models.init import build
from resnetlab.models.memory import predict_memory
from resnetlab.models.recompute import SegmentedStage, recompute_blocks
from resnetlab.models.summary import summarise
from resnetlab.models.zoo import create_model, model_config
from resnetlab.train.config import Optimizer, TrainConfig
from resnetlab.train.optim import make_optimizer


def really_saved(net: nn.Module, x: torch.Tensor, *, with_input: bool = True) -> int:
    """Bytes that autograd keeps on the CPU: every storage once by its address, those of the network left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    own |= set() if with_input else {x.untyped_storage().data_ptr()}
    sizes: dict[int, int] = {}
    alive = []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = net.train()(x)
    assert output.requires_grad
    return sum(sizes.values())


def really_recomputed(net: nn.Module, x: torch.Tensor) -> int:
    """The most that a segment keeps beside its input."""
    x, most = net.stem(net.prepare(x)).detach(), 0
    for stage in net.stages:
        assert isinstance(stage, SegmentedStage)
        for segment in stage.segments():
            most = max(most, really_saved(segment, x, with_input=False))
            x = segment(x).detach()
    return most


def images(config, batch: int) -> torch.Tensor:
    return torch.randn(batch, config.in_chans, config.image_size, config.image_size)


@pytest.mark.parametrize(
    ("depth", "checkpointing"),
    [
        (20, None),
        (20, 1),
        (20, 2),
        (56, 4),
        *(pytest.param(110, every, marks=pytest.mark.long) for every in (None, 4)),
        *(pytest.param(218, every, marks=pytest.mark.long) for every in (None, 6)),
    ],
)
def test_saved_activations_equal_those_of_a_real_step(depth, checkpointing):
    config = model_config(f"cifar_resnet{depth}", image_size=16)
    predicted = predict_memory(config, 2, checkpointing=checkpointing)
    net = build(config, seed=0)
    if checkpointing:
        recompute_blocks(net, checkpointing)
        assert predicted.recomputed == really_recomputed(net, images(config, 2))
    assert predicted.saved_activations == really_saved(net, images(config, 2))


@pytest.mark.parametrize("checkpointing", [None, 2])
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("cifar_preact_resnet20", {}),
        ("cifar_preact_resnet20", {"norm": "none", "scaling": "skipinit"}),
        ("cifar_plain20", {"shortcut": None}),
        ("resnet50", {"depths": (1, 1, 1, 1), "image_size": 64, "se_reduction": 16}),
        ("mlp_resnet34", {"norm": "layer"}),
    ],
)
def test_saved_activations_of_every_family_are_within_five_percent(name, overrides, checkpointing):
    config = model_config(name, **overrides)
    predicted = predict_memory(config, 3, checkpointing=checkpointing)
    net = build(config, seed=0)
    if checkpointing:
        recompute_blocks(net, checkpointing)
        assert predicted.recomputed == pytest.approx(really_recomputed(net, images(config, 3)), rel=0.05)
    assert predicted.saved_activations == pytest.approx(really_saved(net, images(config, 3)), rel=0.05)


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_network_gradients_and_optimizer_state_are_those_of_a_real_step(optimizer):
    net = create_model("cifar_resnet20")
    predicted = predict_memory(net, 4, optimizer=optimizer)
    step = make_optimizer(net, TrainConfig(optimizer=optimizer))
    net(images(net.config, 4)).sum().backward()
    step.step()
    state = [value for slots in step.state.values() for value in slots.values()]
    for count, tensors in (
        (predicted.parameters, list(net.parameters())),
        (predicted.buffers, list(net.buffers())),
        (predicted.gradients, [parameter.grad for parameter in net.parameters()]),
        (predicted.optimizer_state, [tensor for tensor in state if isinstance(tensor, torch.Tensor)]),
    ):
        assert count == sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    held = predicted.parameters + predicted.buffers + predicted.optimizer_state
    assert predicted.total == held + predicted.step
    # Gradients come as activations go.
    assert predicted.saved_activations < predicted.step < predicted.saved_activations + predicted.gradients


def test_accumulation_precision_average_and_trace_count():
    config = model_config("cifar_resnet14")
    whole = predict_memory(config, 64)
    parts = predict_memory(config, 64, accumulate=4)
    assert parts.step == pytest.approx(whole.step / 4 + whole.gradients, rel=0.05)
    assert parts.multiply_adds == whole.multiply_adds
    halves = predict_memory(config, 64, precision="bf16")
    assert halves.step == pytest.approx(whole.step / 2, rel=0.05)
    averaged = predict_memory(config, 64, ema=True)
    assert averaged.total - whole.total == whole.parameters + whole.buffers
    assert predict_memory(config, 64, precision="bf16", traced=64).total > halves.total + 0.4 * whole.step
    assert predict_memory(config, 64, traced=64).total == whole.total


def test_multiply_adds_are_those_counted_by_hand():
    """Forward M, gradients of the weights M, of the inputs M less the first layer, which has none to pass on to."""
    forward, first = 40_551_040, 32 * 32 * 16 * 3 * 9
    assert predict_memory(model_config("cifar_resnet20"), 5).multiply_adds == 5 * (3 * forward - first)


@pytest.mark.parametrize(
    ("name", "checkpointing"), [("cifar_resnet20", 2), ("cifar_preact_resnet20", 1), ("mlp_resnet8", None)]
)
def test_multiply_adds_are_half_of_the_flops_that_torch_counts_in_a_step(name, checkpointing):
    config = model_config(name, image_size=8)
    net = build(config, seed=0)
    recompute_blocks(net, checkpointing)
    with FlopCounterMode(display=False) as counter:
        net.train()(images(config, 2)).sum().backward()
    predicted = predict_memory(config, 2, checkpointing=checkpointing)
    assert predicted.multiply_adds == counter.get_total_flops() // 2


def test_groups_share_the_multiply_adds_of_the_gradients_too():
    """Torch's counter takes the gradient of the weights for that of a convolution without groups."""
    config = model_config("resnext50_32x4d", depths=(1, 1, 1, 1), image_size=32)
    forward = summarise(config).multiply_adds
    assert predict_memory(config, 2).multiply_adds == 2 * (3 * forward - 16 * 16 * 64 * 3 * 49)


def test_checkpointing_trades_memory_for_a_second_forward_pass():
    kept, checked = (
        predict_memory(model_config("cifar_resnet56", image_size=16), 16, checkpointing=every) for every in (None, 3)
    )
    assert checked.saved_activations + checked.recomputed < kept.saved_activations / 2.5
    assert 1.3 < checked.multiply_adds / kept.multiply_adds < 4 / 3


def test_nothing_is_allocated_for_a_net_that_no_machine_holds():
    predicted = predict_memory(model_config("cifar_resnet20", widths=(2048, 4096, 8192)), 65_536)
    assert predicted.total > 2**43


def test_the_given_net_is_left_alone():
    net = create_model("cifar_resnet8").eval()
    before = repr(net)
    assert predict_memory(net, 4, checkpointing=1) == predict_memory(net.config, 4, checkpointing=1)
    assert repr(net) == before
    assert not net.training
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 1}, "batch=1 .* at least 2"),
        ({"batch": 2, "optimizer": "sdg"}, "did you mean 'sgd'"),
        ({"batch": 2, "checkpointing": 0}, "every=0"),
        ({"batch": 6, "accumulate": 4}, "divides the batch of 6"),
        ({"batch": 2, "precision": "fp8"}, "precision"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        predict_memory(model_config("cifar_resnet8"), **arguments)


def test_what_has_no_config_is_refused():
    with pytest.raises(ConfigError, match="Linear has no config"):
        predict_memory(nn.Linear(2, 2), 2)
