"""Depth changed on trained nets: outputs to the bit, the way back through config and file, and what is refused."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError
from resnetlab.models.blocks import last_scale
from resnetlab.models.mlp import divide_blocks
from resnetlab.models.summary import summarise
from resnetlab.models.surgery import deepen, drop_blocks, droppable_blocks, reorder, to_plain
from resnetlab.models.zoo import create_model
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import fit
from tests.conftest import make_data

TINY = {"depths": (1, 2, 1), "widths": (8, 8, 16), "strides": (1, 2, 2), "stem_width": 8, "image_size": 8}
IMAGENET = {"depths": (2, 1), "widths": (4, 8), "stem_width": 8, "image_size": 32}
NETS = {
    "cifar": ("cifar_resnet8", {"image_size": 8}),
    "cifar B": ("cifar_resnet8", {"image_size": 8, "shortcut": "B"}),
    "cifar preact": ("cifar_preact_resnet8", {"image_size": 8}),
    "preact tanh": ("cifar_preact_resnet8", {"image_size": 8, "activation": "tanh"}),
    "bottleneck": ("resnet50", IMAGENET),
    "bottleneck preact": ("resnetv2_50", IMAGENET),
    "se": ("seresnet50", IMAGENET | {"se_reduction": 4}),
    "group norm": ("cifar_resnet8", TINY | {"norm": "group"}),
    "skipinit": ("cifar_resnet8", TINY | {"norm": "none", "scaling": "skipinit"}),
    "fixup preact": ("cifar_preact_resnet8", TINY | {"norm": "none", "scaling": "fixup"}),
    "conv bias": ("cifar_resnet8", TINY | {"conv_bias": True, "norm": "none"}),
    "mlp": ("mlp_resnet8", {}),
    "mlp norm": ("mlp_resnet8", {"norm": "layer", "scale_residual": True}),
}
TRAINING = TrainConfig(epochs=1, batch_size=32, lr=0.01, schedule="constant", device="cpu", channels_last=False)
trained_nets: dict[str, nn.Module] = {}


def trained(kind: str) -> nn.Module:
    """A net that three steps on made data have moved away from every initial zero and one, in eval mode."""
    if kind not in trained_nets:
        name, overrides = NETS[kind]
        net = create_model(name, num_classes=3, in_chans=1, **overrides)
        fit(net, make_data(side=net.config.image_size), TRAINING, seed=0)
        trained_nets[kind] = net.eval()
    return trained_nets[kind]


def images(net: nn.Module, n: int = 6) -> torch.Tensor:
    side = net.config.image_size
    return torch.randn(n, net.config.in_chans, side, side, generator=torch.Generator().manual_seed(1))


def rebuilt(net: nn.Module) -> nn.Module:
    """The network that config and tensors alone make."""
    again = net.config.make()
    again.load_state_dict(net.state_dict())
    return again.train(net.training)


def assert_same_net(net: nn.Module, again: nn.Module) -> None:
    assert repr(net) == repr(again)
    with torch.no_grad():
        assert torch.equal(net(images(net)), again(images(net)))


def storages(net: nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in net.state_dict().values()}


@pytest.mark.parametrize("n", [1, 4, 20])
@pytest.mark.parametrize("kind", NETS)
def test_deepen_leaves_the_logits_equal_to_the_bit(kind, n):
    net = trained(kind)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    stage = len(net.stages) - 1
    deeper = deepen(net, stage, n)
    with torch.no_grad():
        assert torch.equal(deeper(images(net)), net(images(net)))
    assert len(deeper.stages[stage]) == len(net.stages[stage]) + n
    assert_same_net(deeper, rebuilt(deeper))
    assert not deeper.training
    assert not storages(deeper) & storages(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("kind", NETS)
def test_deepen_every_stage_leaves_training_outputs_and_statistics_equal(kind):
    net = deepen(trained(kind), 0, 1).train()
    deeper = net
    for stage in range(len(net.stages)):
        deeper = deepen(deeper, stage, 2, seed=5)
    assert deeper.training
    assert torch.equal(deeper(images(net)), net(images(net)))
    statistics, kept = dict(deeper.named_buffers()), dict(net.named_buffers())
    assert all(torch.equal(statistics[name], kept[name]) for name in kept)


@pytest.mark.parametrize("kind", NETS)
def test_deepened_net_goes_on_learning_with_its_new_blocks(kind):
    net = trained(kind)
    depth = len(net.stages[0])
    deeper = deepen(net, 0, 2).train()
    fresh = dict(deeper.stages[0][depth:].named_parameters())
    start = {name: parameter.detach().clone() for name, parameter in fresh.items()}
    step = torch.optim.SGD(deeper.parameters(), lr=0.02, momentum=0.9)
    x, labels = images(net, 12), torch.arange(12) % 3
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(deeper(x), labels)
        step.zero_grad()
        loss.backward()
        step.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    still = {name for name, parameter in fresh.items() if torch.equal(parameter, start[name])}
    # A bias in front of BN has no gradient; every weight has one.
    assert not {name for name in still if name.endswith("weight")}


@pytest.mark.parametrize("kind", NETS)
def test_last_scale_that_is_not_zero_changes_the_logits(kind):
    """The control: the bits are equal because of the zeros."""
    net = trained(kind)
    deeper = deepen(net, 0, 1)
    block = deeper.stages[0][-1]
    with torch.no_grad():
        last_scale(block.branch).fill_(0.1)
        if kind.startswith("fixup"):
            block.branch.conv2.weight.fill_(0.1)
        assert not torch.equal(deeper(images(net)), net(images(net)))


def test_new_weights_are_those_of_the_deeper_net_of_the_seed():
    deeper = deepen(trained("cifar"), 1, 2, seed=7)
    made = create_model("cifar_resnet8", num_classes=3, in_chans=1, depths=(1, 3, 1), seed=7).state_dict()
    name = "stages.1.2.branch.conv1.weight"
    assert torch.equal(deeper.state_dict()[name], made[name])
    assert not torch.equal(deepen(trained("cifar"), 1, 2, seed=8).state_dict()[name], made[name])


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_preact_resnet20"])
def test_deepen_keeps_the_bits_of_a_net_in_channels_last_too(name):
    net = create_model(name).to(memory_format=torch.channels_last).eval()
    deeper = deepen(deepen(net, 0, 3), 2, 1)
    with torch.no_grad():
        assert torch.equal(deeper(images(net)), net(images(net)))
        turned = images(net).to(memory_format=torch.channels_last)
        assert torch.equal(deeper(turned), net(turned))
    assert not deeper.stages[0][-1].branch.conv1.weight.is_contiguous()


def test_deepen_keeps_the_type_of_the_weights_and_works_on_meta():
    deeper = deepen(create_model("cifar_resnet8").double(), 0, 1)
    assert {parameter.dtype for parameter in deeper.parameters()} == {torch.float64}
    deeper = deepen(create_model("resnet50", device="meta"), 2, 4)
    assert {parameter.device.type for parameter in deeper.parameters()} == {"meta"}
    assert summarise(deeper.config).weight_layers == 50 + 12


def test_stochastic_depth_follows_its_rule_for_the_new_number_of_blocks():
    net = create_model("cifar_resnet8", stochastic_depth=0.3)
    deeper = deepen(net, 0, 3)
    assert [round(block.drop.p, 3) for stage in deeper.stages for block in stage] == [0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    assert_same_net(deeper.eval(), rebuilt(deeper).eval())
    assert [block.drop.p for stage in drop_blocks(deeper, ["stages.0.1"]).stages for block in stage][-1] == 0.3


@pytest.mark.parametrize(
    ("name", "overrides", "stage", "n", "message"),
    [
        ("cifar_plain8", {}, 0, 1, "no identity to start from"),
        ("cifar_resnet8", {"shortcut": "C"}, 0, 1, "shortcut='C' cannot be deepened"),
        ("cifar_resnet8", {"activation": "tanh"}, 0, 1, "activation Tanh .* relu alone"),
        ("cifar_resnet8", {"activation": "leaky_relu"}, 0, 1, "LeakyReLU"),
        ("cifar_resnet8", {"activation": "gelu"}, 0, 1, "GELU"),
        ("cifar_resnet8", {}, 3, 1, "stage=3 .* from 0 to 2"),
        ("cifar_resnet8", {}, -1, 1, "stage=-1"),
        ("cifar_resnet8", {}, 0, 0, "n=0"),
        ("vgg11", {}, 0, 1, "needs a network of residual blocks"),
        ("mlp_resnet8", {"widths": (8, 16)}, 1, 2, r"cannot have \[2, 3\] .* 5 blocks as \[3, 2\]"),
        ("mlp_resnet4", {"widths": (8, 16)}, 1, 1, "its first one changes the shape"),
    ],
)
def test_deepen_refuses_what_has_no_identity_or_no_config(name, overrides, stage, n, message):
    with pytest.raises(ConfigError, match=message):
        deepen(create_model(name, device="meta", **overrides), stage, n)


def test_mlp_of_several_widths_deepens_where_its_config_spreads_so():
    net = create_model("mlp_resnet8", widths=(8, 16)).eval()
    assert divide_blocks(net.config.blocks, net.config.widths) == [2, 1]
    deeper = deepen(net, 1, 1)
    assert deeper.config.depth == 10
    assert_same_net(deeper, rebuilt(deeper))


def test_surgery_refuses_a_net_that_is_no_longer_its_config():
    net = create_model("cifar_resnet8")
    net.stages[0][0].activation = nn.Tanh()
    for operate in (lambda: deepen(net, 0, 1), lambda: drop_blocks(net, []), lambda: to_plain(net)):
        with pytest.raises(ConfigError, match="not the one that its config describes"):
            operate()
    with pytest.raises(ConfigError, match="not Linear"):
        to_plain(nn.Linear(2, 2))


@pytest.mark.parametrize("kind", NETS)
def test_dropped_block_changes_the_logits_and_leaves_a_real_smaller_checkpoint(kind, tmp_path):
    net = trained(kind)
    deeper = deepen(net, 0, 2)
    added = [f"stages.0.{number}" for number in (len(net.stages[0]), len(net.stages[0]) + 1)]
    assert_same_net(drop_blocks(deeper, added), net)
    with torch.no_grad():
        for parameter in deeper.stages[0][-1].branch.parameters():
            parameter.add_(0.05)
    smaller = drop_blocks(deeper, added[1:])
    assert not torch.equal(smaller(images(net)), deeper(images(net)))
    assert list(smaller.state_dict()) == list(smaller.config.make().state_dict())
    save_file(smaller.state_dict(), tmp_path / "smaller.safetensors")
    save_file(deeper.state_dict(), tmp_path / "deeper.safetensors")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("smaller", "deeper")]
    assert sizes[0] < sizes[1]
    again = smaller.config.make().eval()
    again.load_state_dict(load_file(tmp_path / "smaller.safetensors"))
    assert_same_net(smaller, again)


def test_blocks_behind_a_gap_move_up():
    net = create_model("cifar_resnet20", seed=3)
    smaller = drop_blocks(net, ["stages.0.0", "stages.2.1"])
    assert smaller.config.depths == (2, 3, 2)
    was, now = net.state_dict(), smaller.state_dict()
    assert torch.equal(now["stages.2.1.branch.conv1.weight"], was["stages.2.2.branch.conv1.weight"])
    assert torch.equal(now["stages.0.0.branch.conv1.weight"], was["stages.0.1.branch.conv1.weight"])
    assert not storages(smaller) & storages(net)


def test_dropping_equals_walking_past_the_block():
    """The lesion by hand: the blocks one after the other, one of them left out."""
    net = create_model("cifar_resnet20", seed=3).eval()
    x = images(net)
    out = net.stem(x)
    for name, block in net.named_modules():
        if name.count(".") == 2 and name.startswith("stages.") and name != "stages.1.2":
            out = block(out)
    assert torch.equal(drop_blocks(net, ["stages.1.2"])(x), net.forward_head(out))


@pytest.mark.parametrize("shortcut", ["C", None])
def test_blocks_of_option_c_and_of_plain_nets_can_be_dropped(shortcut):
    net = create_model("cifar_resnet20", shortcut=shortcut).eval()
    smaller = drop_blocks(net, ["stages.0.0", "stages.1.1"])
    assert_same_net(smaller, rebuilt(smaller))


@pytest.mark.parametrize(
    ("name", "overrides", "which", "message"),
    [
        ("cifar_resnet20", {}, ["stages.1.0"], "stages.1.0 cannot be dropped: it changes the shape"),
        ("cifar_plain20", {}, ["stages.1.0"], "changes the shape"),
        ("cifar_resnet20", {"shortcut": "C"}, ["stages.2.0"], "changes the shape"),
        ("resnet50", {}, ["stages.0.0"], "changes the shape"),
        ("cifar_resnet8", {"widths": (16, 16, 16)}, ["stages.1.0"], "changes the shape"),
        ("cifar_resnet8", {}, ["stages.0.0"], "at least one block in every stage"),
        ("cifar_resnet20", {}, ["stages.1.3"], "unknown block 'stages.1.3'; did you mean"),
        ("cifar_resnet20", {}, ["stem"], "unknown block 'stem'"),
        ("mlp_resnet12", {"widths": (8, 16)}, ["stages.0.1", "stages.0.2"], "cannot have"),
    ],
)
def test_drop_blocks_refuses_what_leaves_no_network(name, overrides, which, message):
    with pytest.raises(ConfigError, match=message):
        drop_blocks(create_model(name, device="meta", **overrides), which)


@pytest.mark.parametrize("name", ["cifar_resnet26", "cifar_preact_resnet26", "cifar_plain26"])
def test_reorder_puts_the_named_blocks_in_that_order(name):
    net = create_model(name, seed=3).eval()
    order = ["stages.1.3", "stages.1.1", "stages.0.2", "stages.0.0"]
    changed = reorder(net, order)
    was, now = net.state_dict(), changed.state_dict()
    weight = "branch.conv2.weight"
    for new, old in {"1.1": "1.3", "1.3": "1.1", "0.0": "0.2", "0.2": "0.0", "1.2": "1.2", "2.0": "2.0"}.items():
        assert torch.equal(now[f"stages.{new}.{weight}"], was[f"stages.{old}.{weight}"])
    assert not torch.equal(changed(images(net)), net(images(net)))
    assert_same_net(changed, rebuilt(changed))
    # Naming the same blocks in their new order again puts them back.
    assert_same_net(reorder(changed, order), net)
    assert not storages(changed) & storages(net)


def test_reorder_takes_a_whole_stage_whose_first_block_stays():
    net = create_model("cifar_resnet20")
    reorder(net, ["stages.1.0", "stages.1.2", "stages.1.1"])
    with pytest.raises(ConfigError, match="changes the shape"):
        reorder(net, ["stages.1.1", "stages.1.0"])


@pytest.mark.parametrize(
    ("order", "message"),
    [(["stages.0.1", "stages.0.1"], "without repetitions"), (["stages.0.7"], "unknown block")],
)
def test_reorder_refuses_wrong_names(order, message):
    with pytest.raises(ConfigError, match=message):
        reorder(create_model("cifar_resnet20", device="meta"), order)


@pytest.mark.parametrize("kind", NETS)
def test_to_plain_cuts_the_shortcuts_and_nothing_else(kind):
    net = trained(kind)
    plain = to_plain(net)
    assert plain.config.shortcut is None
    assert_same_net(plain, rebuilt(plain))
    assert not storages(plain) & storages(net)
    kept = {name: tensor for name, tensor in net.state_dict().items() if ".shortcut." not in name}
    assert list(plain.state_dict()) == list(kept)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in plain.state_dict().items())
    assert not torch.equal(plain(images(net)), net(images(net)))
    assert_same_net(to_plain(plain), plain)


def test_to_plain_of_a_zero_started_net_has_a_config_that_is_possible():
    assert not to_plain(create_model("cifar_resnet8", zero_init_residual=True)).config.zero_init_residual


def test_net_whose_last_blocks_have_the_stride_loses_blocks_between_and_gains_none():
    net = create_model("resnetv2_50", widths=[4, 8], depths=[3, 3], stride_at="last", num_classes=3).eval()
    assert droppable_blocks(net) == ["stages.0.1", "stages.1.1", "stages.1.2"]
    smaller = drop_blocks(net, ["stages.0.1"])
    rebuilt = smaller.config.make().eval()
    rebuilt.load_state_dict(smaller.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(rebuilt(x), smaller(x))
    with pytest.raises(ConfigError, match="stride_at='last' cannot be deepened"):
        deepen(net, stage=0, n=1)
