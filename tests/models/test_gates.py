"""The controls of He et al. 2016, Table 1, and ReZero: each against its equation written out in plain torch."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from resnetlab.core.errors import ConfigError
from resnetlab.core.randomness import derive_seed
from resnetlab.diagnostics.paths import record
from resnetlab.diagnostics.probes import Probe
from resnetlab.models.architectures import config_from_plain, config_to_plain
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.gates import GATES, LearnedGate
from resnetlab.models.init import build
from resnetlab.models.key_mapping import their_names
from resnetlab.models.recompute import recompute_blocks
from resnetlab.models.shortcuts import IdentityShortcut, ZeroPadShortcut
from resnetlab.models.summary import summarise
from resnetlab.models.surgery import deepen, drop_blocks, to_plain
from resnetlab.models.zoo import create_model, model_config
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import fit

SMALL = {"image_size": 8, "in_chans": 1, "num_classes": 3}


def small(shortcut: str | None, name: str = "cifar_resnet8", **choices) -> nn.Module:
    return create_model(name, shortcut=shortcut, **(SMALL | choices))


def blocks_of(net: nn.Module) -> list[ResidualBlock]:
    return [module for module in net.modules() if isinstance(module, ResidualBlock)]


def by_hand(block: ResidualBlock, x: torch.Tensor, shortcut: str) -> torch.Tensor:
    """y of the block in eval mode, with option A's S and the factors of the paper's Table 1 written out."""
    stride = block.branch.conv1.stride[0]
    wider = block.branch.conv2.out_channels - x.shape[1]
    s = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, wider))
    f = block.branch(x)
    if shortcut in ("gated", "highway"):
        weight, bias = block.gate.layer.weight[:, :, 0, 0], block.gate.layer.bias
        z = torch.einsum("oc,nchw->nohw", weight, x[:, :, ::stride, ::stride]) + bias[:, None, None]
        g = 1 / (1 + torch.exp(-z))
        return F.relu((g * f if shortcut == "highway" else f) + (1 - g) * s)
    return F.relu(0.7 * f + 0.4 * s) if shortcut == "scaled" else F.relu(f + 0.75 * s)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("shortcut", GATES)
def test_block_equals_its_equation_forward_and_back(shortcut, number):
    choices = {"shortcut_scale": 0.4, "branch_scale": 0.7, "gate_bias": -1.0, "shortcut_dropout": 0.25}
    block = blocks_of(small(shortcut, **choices))[number].double().eval()
    assert isinstance(block.shortcut, ZeroPadShortcut if number else IdentityShortcut)
    x = torch.randn(3, block.branch.conv1.in_channels, 8, 8, dtype=torch.float64)
    for parameter in block.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    weights = torch.randn_like(block(x))
    found = []
    for function in (block, lambda x: by_hand(block, x, shortcut)):
        given = x.clone().requires_grad_()
        y = function(given)
        found.append((y, *torch.autograd.grad((y * weights).sum(), [given, *block.parameters()])))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("shortcut", GATES)
def test_fully_connected_block_equals_its_equation(shortcut):
    net = create_model("mlp_resnet4", shortcut=shortcut, gate_bias=-2.0).eval()
    (block,) = blocks_of(net)
    a = torch.rand(5, 64)
    z = block.branch(a)
    g = torch.sigmoid(a @ block.gate.layer.weight.T - 2.0) if isinstance(block.gate, LearnedGate) else None
    expected = {
        "scaled": lambda: z + 0.5 * a,
        "gated": lambda: z + (1 - g) * a,
        "highway": lambda: g * z + (1 - g) * a,
        "dropout": lambda: z + 0.5 * a,
    }[shortcut]()
    assert_close(block(a), F.relu(expected))


def test_defaults_are_those_of_the_paper_and_b_g_starts_there():
    config = model_config("cifar_resnet20", shortcut="highway")
    assert (config.shortcut_scale, config.branch_scale, config.gate_bias, config.shortcut_dropout) == (0.5, 1, -6, 0.5)
    net = create_model("cifar_resnet20", shortcut="gated")
    gates = [module for module in net.modules() if isinstance(module, LearnedGate)]
    assert len(gates) == 9
    assert all((gate.layer.bias == -6).all() for gate in gates)
    # He's σ, drawn by the parameter's name: 3,072 numbers have a deviation within 4 % of it.
    assert gates[-1].layer.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_preact_resnet8", "mlp_resnet6", "resnet18", "resnetv2_50"])
@pytest.mark.parametrize("shortcut", GATES)
def test_shared_parameters_are_those_of_the_plain_net_to_the_bit(shortcut, name):
    gated, plain = ({**small(one, name).state_dict()} for one in (shortcut, None))
    assert all(torch.equal(value, gated.pop(key)) for key, value in plain.items())
    assert all(".gate.layer." in key for key in gated)
    assert bool(gated) == (shortcut in ("gated", "highway"))


@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("shortcut", GATES)
def test_gates_hardly_shut_leave_the_net_near_option_a(shortcut, order):
    """λ = 1, b_g = -30 and p = 0 leave c = 1; the exclusive gate then has t = 0 and its blocks are the identity."""
    name = {"post": "cifar_resnet8", "pre": "cifar_preact_resnet8"}[order]
    open_gates = {"shortcut_scale": 1.0, "gate_bias": -30.0, "shortcut_dropout": 0.0}
    x = torch.randn(4, 1, 8, 8)
    ours, usual = small(shortcut, name, **open_gates), small("A", name)
    if shortcut == "highway":
        block = blocks_of(ours)[0]
        y = torch.rand(2, 16, 8, 8)
        assert_close(block(y), y, atol=1e-5, rtol=0)
    else:
        assert_close(ours(x), usual(x))


def test_dropout_on_the_shortcut_zeroes_values_in_training_and_halves_them_in_eval_mode():
    gate = blocks_of(small("dropout", shortcut_dropout=0.25))[0].gate
    f, s = torch.randn(50, 16, 8, 8), torch.ones(50, 16, 8, 8)
    branch, carried = gate.train()(f, f, s)
    assert branch is f
    assert carried.unique().tolist() == [0, 1]
    assert carried.mean().item() == pytest.approx(0.75, abs=0.01)
    assert torch.equal(gate.eval()(f, f, s)[1], 0.75 * s)


def test_dropout_is_drawn_from_seed_and_step_of_the_run(data):
    """Runs of one seed end in equal bits; the values that are zeroed are those of the generator of (seed, step)."""
    ends, steps = [], []

    def keep(_gate, inputs, outputs):
        steps.append((inputs[2].detach(), outputs[1].detach()))

    for seed in (3, 3, 4):
        steps.clear()
        net = small("dropout")
        handle = blocks_of(net)[0].gate.register_forward_hook(keep)
        torch.manual_seed(len(ends))
        fit(net, data, TrainConfig(epochs=1, batch_size=32, lr=0.01, device="cpu", channels_last=False), seed=seed)
        handle.remove()
        ends.append(net.head.weight.detach().clone())
        # No module draws before the first block does; passes of evaluation come after those of the three steps.
        for step, (carried, weighed) in enumerate(steps[:3]):
            torch.manual_seed(derive_seed(seed, "step", step))
            assert torch.equal(weighed, 0.5 * F.dropout(carried, 0.5, training=True))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("shortcut", GATES)
def test_configuration_and_weights_make_the_net_again(shortcut):
    net = small(shortcut, gate_bias=-2.5, shortcut_scale=0.25).eval()
    config = config_from_plain(config_to_plain(net.config))
    assert config == net.config
    again = build(config, seed=9).eval()
    again.load_state_dict(net.state_dict())
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(again(x), net(x))


@pytest.mark.parametrize("shortcut", GATES)
def test_recomputed_activations_change_no_bit(shortcut):
    found = []
    for every in (None, 1):
        net = recompute_blocks(small(shortcut, depths=(2, 2, 1)), every)
        torch.manual_seed(5)
        out = net(torch.linspace(-1, 1, 4 * 64).view(4, 1, 8, 8))
        out.sum().backward()
        found.append([out, *(parameter.grad for parameter in net.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_gate_counts_in_parameters_and_cost_and_not_in_the_depth():
    usual, gated = (summarise(model_config("cifar_resnet20", shortcut=option)) for option in ("A", "gated"))
    assert usual.weight_layers == gated.weight_layers == 20
    sizes = [(16, 16)] * 3 + [(16, 32)] + [(32, 32)] * 2 + [(32, 64)] + [(64, 64)] * 2
    assert gated.parameters - usual.parameters == sum(a * b + b for a, b in sizes)
    sides = [32] * 3 + [16] * 3 + [8] * 3
    extra = sum(a * b * side**2 for (a, b), side in zip(sizes, sides, strict=True))
    assert gated.multiply_adds - usual.multiply_adds == extra


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("shortcut", GATES)
def test_script_of_torch_takes_the_block(shortcut):
    net = small(shortcut).eval()
    x = torch.randn(2, 1, 8, 8)
    assert_close(torch.jit.script(net)(x), net(x))


@pytest.mark.parametrize("shortcut", GATES)
def test_surgery_drops_blocks_and_shortcuts_and_refuses_to_deepen(shortcut):
    net = small(shortcut, depths=(2, 2, 2))
    smaller = drop_blocks(net, ["stages.1.1"])
    again = smaller.config.make()
    again.load_state_dict(smaller.state_dict())
    plain = to_plain(net)
    assert [*plain.state_dict()] == [*small(None, depths=(2, 2, 2)).state_dict()]
    assert repr(plain) == repr(plain.config.make())
    with pytest.raises(ConfigError, match=f"shortcut='{shortcut}' cannot be deepened"):
        deepen(net, 0, 1)


def test_probe_reads_both_summands_as_they_are_added():
    net = small("highway", gate_bias=0.0).double().eval()
    block = blocks_of(net)[0]
    kept = []
    block.register_forward_hook(lambda _block, inputs, _y: kept.append(inputs[0].detach()))
    with Probe(net) as probe:
        net(torch.randn(4, 1, 8, 8, dtype=torch.float64)).sum().backward()
    (x,) = kept
    g = torch.sigmoid(block.gate.layer(x))
    found = probe.statistics()[0]
    assert found.branch_norm == pytest.approx((g * block.branch(x)).norm().item())
    assert found.shortcut_norm == pytest.approx(((1 - g) * x).norm().item())
    assert found.ratio == pytest.approx(found.branch_norm / found.shortcut_norm)


def test_path_of_shortcuts_alone_loses_half_its_gradient_in_each_scaled_block():
    """y = F + λ x without activations in between: the gradient of the path through no branch is λⁿ times that of A."""
    choices = {"order": "pre", "depths": (4,), "widths": (16,), "norm": "none"}
    images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    found = {}
    for option, start in (("A", {}), ("scaled", {"shortcut_scale": 0.5})):
        net = small(option, zero_init_residual=True, **choices, **start)
        # The head has its gradient from the features; at λ = 0.5 those are a sixteenth.
        nn.init.zeros_(net.head.weight)
        nn.init.normal_(net.head.weight, generator=torch.Generator().manual_seed(1))
        net.final = nn.Identity()
        net.head.weight.data *= 1e-6  # softmax stays at its start, so the loss is linear in the features
        found[option] = record(net, images, labels).log_gradient(())
    assert found["scaled"] - found["A"] == pytest.approx(4 * np.log10(0.5), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("cifar_resnet8", {}),
        ("cifar_resnet8", {"norm": "none"}),
        ("cifar_preact_resnet8", {"norm": "group"}),
        ("mlp_resnet8", {}),
        ("mlp_resnet8", {"norm": "layer"}),
    ],
)
def test_rezero_is_s_plus_alpha_f_from_alpha_zero_with_any_norm(name, choices):
    net, usual = (small(..., name, scaling=scaling, **choices).eval() for scaling in ("rezero", "none"))
    alphas = {key: value for key, value in net.named_parameters() if key.endswith("branch.scale.weight")}
    assert len(alphas) == len(blocks_of(net)) == 3
    assert [value.item() for value in alphas.values()] == [0.0] * 3
    theirs = usual.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in net.state_dict().items() if key not in alphas)
    block, like = blocks_of(net)[0], blocks_of(usual)[0]
    x = torch.rand(5, 64) if "mlp" in name else torch.rand(5, 16, 8, 8)
    assert torch.equal(block(x), x)
    nn.init.constant_(block.branch.scale.weight, 0.3)
    p = like.preactivation(x)
    assert_close(block(x), like.activation(x + 0.3 * like.branch(p)))
    net(torch.randn(4, 1, 8, 8)).square().sum().backward()
    assert all(value.grad.abs().item() > 0 for value in alphas.values())


def test_rezero_net_is_deepened_by_blocks_of_alpha_zero():
    for name in ("cifar_resnet8", "mlp_resnet8"):
        net = small(..., name, scaling="rezero").eval()
        for block in blocks_of(net):
            nn.init.constant_(block.branch.scale.weight, 0.4)
        deeper = deepen(net, 0, 2)
        x = torch.randn(4, 1, 8, 8)
        assert torch.equal(deeper(x), net(x))
        alphas = [round(block.branch.scale.weight.item(), 6) for block in blocks_of(deeper)]
        assert sorted(alphas) == [0, 0, 0.4, 0.4, 0.4]


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("cifar_resnet20", {"shortcut": "scale"}, "did you mean 'scaled'"),
        ("cifar_resnet20", {"shortcut": "scaled", "shortcut_scale": float("inf")}, "shortcut_scale"),
        ("cifar_resnet20", {"shortcut": "scaled", "branch_scale": float("nan")}, "branch_scale"),
        ("cifar_resnet20", {"shortcut": "gated", "gate_bias": float("nan")}, "gate_bias"),
        ("cifar_resnet20", {"shortcut": "dropout", "shortcut_dropout": 1.0}, "shortcut_dropout"),
        ("cifar_resnet20", {"scaling": "rezero", "zero_init_residual": True}, "decides how a branch starts"),
        ("mlp_resnet8", {"scaling": "rezero", "scale_residual": True}, "decides how a branch starts"),
        ("mlp_resnet8", {"scaling": "skipinit"}, "scaling"),
        ("cifar_plain20", {"scaling": "rezero"}, "scaling='rezero' needs a shortcut"),
        ("mlp_plain8", {"scaling": "rezero"}, "scaling='rezero' needs a shortcut"),
        ("mlp_resnet8", {"shortcut": "highway", "widths": (64, 32)}, "cannot narrow 64 channels to 32"),
    ],
)
def test_impossible_combination_is_refused_in_one_line(name, choices, message):
    with pytest.raises(ConfigError, match=message) as error:
        create_model(name, **choices)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shortcut", GATES)
def test_names_of_other_projects_are_refused_for_a_gated_net(shortcut):
    with pytest.raises(ConfigError, match=f"shortcut='B' and this one has '{shortcut}'"):
        their_names(small(shortcut, "resnet18"), "torchvision")
