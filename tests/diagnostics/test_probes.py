import copy
import gc
from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError
from resnetlab.diagnostics.probes import (
    Probe,
    _Watch,
    mean_cosine,
    measure_blocks,
    norm,
    recompute_activations,
    std,
    zero_shares,
)
from resnetlab.models.blocks import FcBranch, ResidualBlock
from resnetlab.models.layers import Multiplier
from resnetlab.models.recompute import recompute_blocks
from resnetlab.models.shortcuts import IdentityShortcut, MatrixShortcut
from resnetlab.models.zoo import create_model
from resnetlab.train.gradients import block_gradients
from tests.diagnostics.nets import context, diagnosed, measured


class Linear(nn.Module):
    """A block y = A x + S x without activation, whose every number can be solved by hand."""

    def __init__(self, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.block = ResidualBlock(nn.Linear(4, 4, bias=False), shortcut, activation=nn.Identity())

    def forward(self, x):
        return self.block(x)


@pytest.mark.parametrize("kind", ["identity", "matrix", "plain"])
def test_linear_block_in_float64_equals_the_hand_solved_one(kind):
    shortcut = {"identity": IdentityShortcut(), "matrix": MatrixShortcut(4, 4), "plain": None}[kind]
    net = Linear(shortcut).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 4, dtype=torch.float64)
    with Probe(net) as probe:
        (net(x) * weights).sum().backward()
    (found,) = probe.statistics()
    a = net.block.branch.weight.detach()
    s = {"identity": torch.eye(4).double(), "plain": torch.zeros(4, 4).double()}.get(kind)
    s = net.block.shortcut.linear.weight.detach() if s is None else s
    x = x.detach()
    branch, beside = x @ a.T, x @ s.T
    y = branch + beside
    expected = {
        "input_norm": x.norm(),
        "branch_norm": branch.norm(),
        "ratio": branch.norm() / (x.norm() if kind == "plain" else beside.norm()),
        "cosine": F.cosine_similarity(x, y, dim=1).mean(),
        "gradient_out": weights.norm(),
        "gradient_branch": (weights @ a).norm(),
        "gradient_in": (weights @ (a + s)).norm(),
        "zeros": torch.zeros(()),
        "dead": torch.zeros(()),
    }
    if kind != "plain":
        expected |= {"shortcut_norm": beside.norm(), "gradient_shortcut": (weights @ s).norm()}
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value.item(), abs=1e-10), name
    assert found.responses == [pytest.approx(branch.std(correction=0).item(), abs=1e-10)]
    if kind == "plain":
        assert found.shortcut_norm is None
        assert found.gradient_shortcut is None


NETS = {
    "post A": ("cifar_resnet14", {}),
    "post C": ("cifar_resnet14", {"shortcut": "C"}),
    "plain": ("cifar_plain14", {}),
    "pre": ("cifar_preact_resnet20", {}),
    "pre bottleneck": ("cifar_preact_resnet11", {}),
    "bottleneck, se": ("seresnet50", {"depths": (2, 2), "widths": (8, 8), "stem_width": 8, "stem": "cifar"}),
    "imagenet": ("resnet18", {}),
    "no norm": ("cifar_resnet14", {"norm": "none", "scaling": "fixup"}),
    "drops": ("cifar_resnet14", {"dropout": 0.3, "stochastic_depth": 0.5}),
    "highway": ("cifar_resnet14", {"shortcut": "highway", "gate_bias": 0.0}),
    "dropped shortcuts": ("cifar_resnet14", {"shortcut": "dropout"}),
    "mlp": ("mlp_resnet9", {}),
    "mlp with norms": ("mlp_resnet9", {"norm": "batch", "widths": (32, 16)}),
}
KINDS = [(kind, 0) for kind in NETS] + [(kind, 2) for kind in ("post A", "pre", "bottleneck, se", "mlp with norms")]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kind", "every"), KINDS, ids=[f"{kind}, checkpoints {every}" for kind, every in KINDS])
def test_a_probe_changes_no_bit_of_outputs_gradients_and_statistics(kind, every, training):
    name, choices = NETS[kind]
    made = [create_model(name, in_chans=1, num_classes=3, image_size=16, **choices) for _ in range(2)]
    plain, watched = ((recompute_blocks(net, every) if every else net).train(training) for net in made)
    for net in made:
        warm_up(net)
    start, labels = torch.randn(6, 1, 16, 16), torch.arange(6) % 3
    outputs, images = [], []
    for net in (plain, watched):
        torch.manual_seed(3)  # of what drops at random
        x = start.clone().requires_grad_()
        with Probe(net) if net is watched else torch.enable_grad():
            out = net(x)
            F.cross_entropy(out, labels).backward()
        outputs.append(out)
        images.append(x.grad)
    assert torch.equal(*outputs)
    assert torch.equal(*images)
    for (key, ours), theirs in zip(plain.named_parameters(), watched.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), key
    ours, theirs = plain.state_dict(), watched.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    counts = {value.item() for key, value in ours.items() if key.endswith("num_batches_tracked")}
    assert counts in ({2 if training else 1}, set())
    again = copy.deepcopy(watched)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in again.modules())


def warm_up(net):
    """One pass in training mode: statistics of its own, that a pass in eval mode reads."""
    training = net.training
    torch.manual_seed(2)
    with torch.no_grad():
        net.train()(torch.randn(6, 1, 16, 16))
    net.train(training)


def test_control_a_probe_that_hands_on_another_tensor_shows(monkeypatch):
    """The smallest change there is to a block's input, one last place of one number, is seen by the test above."""

    def enter(self, _block, inputs):
        return (torch.nextafter(inputs[0], torch.tensor(9.0)),)

    nets = [create_model("cifar_resnet14", in_chans=1).eval() for _ in range(2)]
    x = torch.randn(6, 1, 16, 16)
    expected = nets[0](x)
    monkeypatch.setattr(_Watch, "_enter", enter)
    monkeypatch.setattr(_Watch, "_leave", lambda *_: None)
    with Probe(nets[1]):
        assert not torch.equal(nets[1](x), expected)


class InPlace(ResidualBlock):
    """Adds as other libraries do: what the branch gave is overwritten by the sum."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.drop(self.branch(x))
        out += self.shortcut(x)
        return out.relu_()


def test_branches_are_read_before_a_sum_in_place_overwrites_them():
    usual, other = (create_model("cifar_resnet14", in_chans=1).double().eval() for _ in range(2))
    kept = []
    for module in other.modules():
        if isinstance(module, ResidualBlock):
            module.__class__ = InPlace
            module.branch.register_forward_hook(lambda _module, _inputs, out: kept.append(out))
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    results = []
    for net in (usual, other):
        with torch.no_grad(), Probe(net) as probe:
            net(x)
        results.append(probe.statistics())
    assert [found.branch_norm for found in results[0]] == [found.branch_norm for found in results[1]]
    assert results[0] == results[1]
    # The control: who keeps the tensor, and reads it when the pass has ended, reads the sum.
    assert kept[0].norm().item() != pytest.approx(results[0][0].branch_norm, rel=1e-2)


def test_responses_behind_norms_are_the_hand_solved_ones():
    """Behind a norm with scale γ, shift 0 and variance v of the batch stands √(mean_c γ_c² v_c / (v_c + ε)).

    z1 = x has the variances 5 and 20 in its two channels, and γ = 3 and 1; z2 is twice and five times what came behind.
    """
    branch = FcBranch(2, 2, "batch", activation=nn.Identity()).double()
    with torch.no_grad():
        branch.linear1.weight.copy_(torch.eye(2))
        branch.linear2.weight.copy_(torch.diag(torch.tensor([2.0, 5.0])))
        branch.linear1.bias.fill_(7.0)  # which a norm takes away again
        branch.norm1.weight.copy_(torch.tensor([3.0, 1.0]))
        branch.norm2.weight.copy_(torch.tensor([1.0, 4.0]))
    x = torch.tensor([[-3.0, 2.0], [-1.0, -6.0], [1.0, 6.0], [3.0, -2.0]], dtype=torch.float64)
    block = ResidualBlock(branch, IdentityShortcut())
    with Probe(nn.Sequential(block.train())) as probe:
        y = block(x)
    (found,) = probe.statistics()
    eps = 1e-5
    first, second = 9 * 5 / (5 + eps), 20 / (20 + eps)
    third, fourth = 4 * first / (4 * first + eps), 16 * 25 * second / (25 * second + eps)
    assert found.responses == [
        pytest.approx(sqrt((first + second) / 2), abs=1e-10), pytest.approx(sqrt((third + fourth) / 2), abs=1e-10)
    ]  # fmt: skip
    # F has the signs of x, so that half of the values of x + F are cut.
    assert (found.dead, found.zeros) == (0, pytest.approx(0.5, abs=1e-10))
    assert y[0, 0] == y[1, 1] == 0


def test_branch_is_measured_as_it_is_added_where_training_drops_it():
    """With p = 3/4 the branch of an image is 0 or four times itself: F = x here, so that y is x or 5x."""
    block = ResidualBlock(Multiplier(1.0), IdentityShortcut(), activation=nn.Identity(), drop=0.75).double().train()
    x = torch.randn(40, 3, dtype=torch.float64)
    with Probe(nn.Sequential(block)) as probe:
        y = block(x)
    kept = (y[:, 0] / x[:, 0] - 1).round()
    assert set(kept.tolist()) == {0, 4}
    (found,) = probe.statistics()
    assert found.branch_norm == pytest.approx(4 * x[kept == 4].norm().item(), abs=1e-10)
    with Probe(nn.Sequential(block.eval())) as probe:
        block(x)
    assert probe.statistics()[0].branch_norm == pytest.approx(x.norm().item(), abs=1e-10)


def test_dead_channels_of_a_hand_made_block_are_counted_exactly():
    """y = relu(x + a x) with a diagonal of a = -2, 0, 1: channel 0 is turned to below zero and dead, 2 lives."""
    net = Linear(IdentityShortcut()).double()
    net.block.activation = nn.ReLU()
    with torch.no_grad():
        net.block.branch.weight.copy_(torch.diag(torch.tensor([-2.0, 0.0, 1.0, 1.0])))
    x = torch.tensor([[1.0, 2.0, 3.0, -1.0], [4.0, 1.0, -5.0, -2.0], [2.0, 3.0, 1.0, -3.0]], dtype=torch.float64)
    with Probe(net) as probe:
        net(x)
    (found,) = probe.statistics()
    assert found.dead == pytest.approx(2 / 4, abs=1e-10)  # of channels 0 and 3 nothing is left
    assert found.zeros == pytest.approx(7 / 12, abs=1e-10)
    # F is (-2 x_0, 0, x_2, x_3).
    assert found.branch_norm == pytest.approx(sqrt(4 * 21 + 35 + 14), abs=1e-10)


def test_statistics_of_a_net_are_those_of_its_hooks():
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3).eval()
    x = torch.randn(4, 1, 8, 8)
    kept = {}
    block = net.stages[1][0]
    handles = [
        block.register_forward_hook(lambda _, i, o: kept.update(x=i[0], y=o)),
        block.branch.register_forward_hook(lambda _, __, o: kept.update(f=o)),
        block.branch.norm1.register_forward_hook(lambda _, __, o: kept.update(n1=o)),
        block.branch.norm2.register_forward_hook(lambda _, __, o: kept.update(n2=o)),
    ]
    with torch.no_grad(), Probe(net) as probe:
        net(x)
    for handle in handles:
        handle.remove()
    found = {one.block: one for one in probe.statistics()}["stages.1.0"]
    assert found.branch_norm == pytest.approx(kept["f"].norm().item(), rel=1e-5)
    assert found.responses == [pytest.approx(kept[n].std(correction=0).item(), rel=1e-5) for n in ("n1", "n2")]
    assert found.zeros == pytest.approx((kept["y"] == 0).float().mean().item(), abs=1e-6)
    assert found.cosine is None  # its shape changes
    assert found.gradient_in is None


def test_dead_channels_are_counted():
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3).eval()
    block = net.stages[0][0]
    with torch.no_grad():
        net.stem.conv.weight[:4] = 0
        block.branch.norm2.weight[:4] = 0
        block.branch.norm2.bias[:4] = -1
        block.branch.norm2.bias[4:] = 9
        with Probe(net) as probe:
            net(torch.randn(4, 1, 8, 8))
    assert probe.statistics()[0].dead == pytest.approx(4 / 16)
    assert probe.statistics()[0].zeros == pytest.approx(4 / 16, abs=1e-6)


def test_preactivation_gradients_are_split_at_x_itself():
    """y = x + F(p(x)): the identity carries ∂L/∂y as it is, and the rest of ∂L/∂x came through F and p."""
    net = create_model("cifar_preact_resnet20", in_chans=1, num_classes=3).double()
    block = net.stages[0][1]
    x, weights = (torch.randn(4, 16, 8, 8, dtype=torch.float64) for _ in range(2))
    x.requires_grad_(True)
    with Probe(nn.Sequential(block)) as probe:
        (block(x) * weights).sum().backward()
    (found,) = probe.statistics()
    assert isinstance(block.shortcut, IdentityShortcut)
    assert found.gradient_shortcut == pytest.approx(weights.norm().item(), abs=1e-10)
    assert found.gradient_branch == pytest.approx((x.grad - weights).norm().item(), abs=1e-10)
    assert found.gradient_in == pytest.approx(x.grad.norm().item(), abs=1e-10)
    activated = block.preactivation(x)
    assert found.zeros == pytest.approx((activated == 0).double().mean().item(), abs=1e-10)
    assert found.zeros > 0.2, "the sum behind the block has no zeros"


def test_checkpointed_net_keeps_no_graph_alive():
    """A watch that held its input with its graph would hold every segment that was computed again."""
    net = recompute_blocks(create_model("cifar_resnet20", in_chans=1, num_classes=3), 2)
    # What other tests left behind is none of it; it is held here, so that no new tensor takes its place in memory.
    others = graphs()
    with Probe(net) as probe:
        block_gradients(net, *batch())
        found = [kept for kept in graphs() if id(kept) not in {id(other) for other in others}]
    assert probe.statistics()
    assert found == []


def graphs() -> list[Tensor]:
    """Every tensor alive that keeps its graph."""
    gc.collect()
    return [kept for kept in gc.get_objects() if issubclass(type(kept), Tensor) and kept.grad_fn is not None]


def test_checkpointed_net_gives_the_same_statistics():
    plain, saving = (create_model("cifar_resnet20", in_chans=1, num_classes=3) for _ in range(2))
    recompute_blocks(saving, 2)
    found = []
    for net in (plain, saving):
        with Probe(net) as probe:
            weights = block_gradients(net.eval(), *batch())
        found.append((weights, probe.statistics()))
        assert not net.training
    assert found[0] == found[1]
    assert all(torch.equal(value, saving.state_dict()[key]) for key, value in plain.state_dict().items())


def batch():
    torch.manual_seed(1)
    return torch.randn(6, 1, 8, 8), torch.arange(6) % 3


def test_network_without_blocks_is_refused_and_never_answered_by_nothing():
    with pytest.raises(ConfigError, match="Sequential holds no ResidualBlock that could be measured; build its blocks"):
        Probe(nn.Sequential(nn.Linear(2, 2)))


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_network_as_it_was(data, training):
    one = diagnosed(data)
    net = one.net.train(training)
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    found = measured(one, "gradients", "residuals", "lesion", batch_size=8, images=9)
    # The depth of 8 leaves one block that keeps the shape, and it is alone in its stage.
    assert found.lesion is None
    assert len(found.blocks) == 3
    assert net.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_dropout_is_drawn_from_the_seed(data):
    net = diagnosed(data, "wide_resnet16_4", dropout=0.5)
    batch = context(net, batch_size=4)
    found = [
        measure_blocks(net, replace(batch, config=replace(batch.config, seed=seed)), measured(net))
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1]
    assert found[0].blocks != found[2].blocks


def test_deep_net_is_measured_in_segments_with_equal_numbers(data, monkeypatch):
    one = diagnosed(data, "cifar_resnet14")
    assert recompute_activations(one.net) is one.net
    usual = measured(one, "gradients", batch_size=4)
    monkeypatch.setattr("resnetlab.diagnostics.probes.DEEP", 2)
    assert recompute_activations(one.net) is not one.net
    assert measured(one, "gradients", batch_size=4) == usual


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 6, 6)])
def test_norm_and_cosine_equal_float64_at_any_scale(scale, shape):
    x, y = torch.randn(2, *shape)
    assert norm(scale * x).item() == pytest.approx((scale * x).double().norm().item(), rel=1e-6)
    expected = F.cosine_similarity((scale * x).double().flatten(1), y.double().flatten(1), dim=1, eps=1e-300).mean()
    assert mean_cosine(scale * x, y).item() == pytest.approx(expected.item(), rel=1e-5)


def test_float32_alone_would_overflow():
    """The control of the test above."""
    assert torch.linalg.vector_norm(torch.full((3, 5), 1e30)).isinf()


def test_zero_and_nan_are_told_as_such():
    x = torch.randn(3, 4, 2, 2)
    assert norm(torch.zeros(3, 4)) == 0
    assert mean_cosine(x, torch.zeros_like(x)) == 0
    assert norm(torch.tensor([[float("nan")]])).isnan()


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 3)])
def test_zeros_are_counted_by_channel_and_value(shape):
    x = torch.randn(shape).clamp(min=0.0)
    x[:, 1], x[:, 3] = 0, -1e-30
    dead, zeros = zero_shares(x)
    assert dead.item() == pytest.approx(sum(not (x[:, c] != 0).any() for c in range(6)) / 6)
    assert zeros.item() == pytest.approx((x == 0).double().mean().item(), abs=1e-12)


def test_amounts_of_a_few_numbers_are_those_counted_by_hand():
    x = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([[4.0, 3.0], [-7.0, 0.0]], dtype=torch.float64)
    assert norm(x).item() == pytest.approx(sqrt(29), abs=1e-10)
    assert mean_cosine(x, y).item() == pytest.approx((24 / 25 + 0) / 2, abs=1e-10)
    assert mean_cosine(x, 3 * x).item() == pytest.approx(1, abs=1e-10)
    assert mean_cosine(x, -x).item() == pytest.approx(-1, abs=1e-10)
    # The mean is 9/4, and the squares have the mean 29/4.
    assert std(x).item() == pytest.approx(sqrt(29 / 4 - 81 / 16), abs=1e-10)
    maps = torch.zeros(2, 3, 2, 2, dtype=torch.float64)  # 24 values; channel 1 is dead, channel 0 in one image alone
    maps[0, 0, 1, 1] = maps[0, 2, 0, 0] = maps[1, 2, 0, 1] = 1
    dead, zeros = zero_shares(maps)
    assert dead.item() == pytest.approx(1 / 3, abs=1e-10)
    assert zeros.item() == pytest.approx(21 / 24, abs=1e-10)


def test_norm_in_float64_is_exact():
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    assert norm(x).item() == pytest.approx(x.square().sum().sqrt().item(), abs=1e-10)
    assert std(x).item() == pytest.approx(x.var(correction=0).sqrt().item(), abs=1e-10)
