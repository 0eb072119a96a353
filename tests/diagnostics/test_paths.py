import copy
from dataclasses import replace
from itertools import combinations
from math import comb, exp, log10, prod

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError
from resnetlab.core.serialize import read_record, write_record
from resnetlab.diagnostics.paths import MOST_LENGTHS, explain, path_lengths, record
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.layers import Multiplier
from resnetlab.models.recompute import recompute_blocks
from resnetlab.models.shortcuts import IdentityShortcut
from resnetlab.models.zoo import create_model
from resnetlab.records.diagnosis import PathResult
from tests.diagnostics.nets import diagnosed, measured
from tests.made import diagnosis, path_result


def linear_net(blocks: int, a: float) -> nn.Module:
    """``blocks`` times x + a x."""
    return nn.Sequential(
        *(ResidualBlock(Multiplier(a), IdentityShortcut(), activation=nn.Identity()) for _ in range(blocks))
    )


def made(blocks: int, a: float, dtype: torch.dtype) -> tuple[PathResult, float]:
    """The result, and ‖∂L/∂logits‖, which is the gradient at the end of every path."""
    x, labels = torch.randn(5, 3, dtype=dtype), torch.tensor([0, 1, 2, 0, 1])
    net = linear_net(blocks, a).to(dtype)
    logits = net(x).double()
    start = (torch.softmax(logits, dim=1) - F.one_hot(labels, 3)).norm().item() / 5
    return path_lengths(net, x, labels, draws=3), start


@pytest.mark.parametrize("blocks", [1, 6, MOST_LENGTHS + 30])
def test_lengths_of_a_linear_net_equal_the_hand_solved_ones(blocks):
    """Through k branches comes a^k of the gradient, and the share of length k is C(n, k) a^k / (1 + a)^n: to 1e-10."""
    a = 0.25
    found, start = made(blocks, a, torch.float64)
    assert [item.length for item in found.lengths] == list(range(blocks + 1))
    for k, item in enumerate(found.lengths):
        assert item.log_magnitude == pytest.approx(log10(start) + k * log10(a), abs=1e-10)
        assert item.share == pytest.approx(comb(blocks, k) * a**k / (1 + a) ** blocks, abs=1e-10)
    assert found.mean == pytest.approx(blocks * a / (1 + a), abs=1e-10)
    shares = [item.share for item in found.lengths]
    assert sum(shares[found.low : found.high + 1]) >= 0.95
    assert sum(shares[: found.low]) < 0.025
    assert sum(shares[found.high + 1 :]) <= 0.025


def test_lengths_of_unequal_blocks_are_elementary_symmetric_polynomials():
    """Through the blocks of a set comes the product of its a; the mean of length k is e_k(a) / C(n, k)."""
    factors = (0.5, 1 / 64, 2.0, 0.25)
    net = nn.Sequential(*(linear_net(1, a)[0] for a in factors)).double()
    x, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    found = path_lengths(net, x, labels, draws=6)
    start = (torch.softmax(net(x), dim=1) - F.one_hot(labels, 3)).norm().item() / 5
    sums = [1, 2.765625, 1.66796875, 0.275390625, 0.00390625]
    assert sums == [pytest.approx(sum(map(prod, combinations(factors, k))), abs=1e-12) for k in range(5)]
    whole = 1.5 * (65 / 64) * 3 * 1.25
    assert sum(sums) == pytest.approx(whole, abs=1e-12)
    for k, item in enumerate(found.lengths):
        assert item.paths == comb(4, k)
        assert item.log_magnitude == pytest.approx(log10(start * sums[k] / comb(4, k)), abs=1e-10)
        assert item.share == pytest.approx(sums[k] / whole, abs=1e-10)
    assert found.mean == pytest.approx(sum(a / (1 + a) for a in factors), abs=1e-10)


def test_gradients_too_small_for_float32_still_count():
    a, blocks = 0.02, 120
    found, start = made(blocks, a, torch.float32)
    assert found.mean == pytest.approx(blocks * a / (1 + a), rel=1e-4)
    assert found.lengths[-1].log_magnitude == pytest.approx(log10(start) + blocks * log10(a), rel=1e-5)
    assert found.lengths[-1].log_magnitude < -200


def test_lengths_between_the_measured_ones_say_so():
    found, _ = made(MOST_LENGTHS + 30, 0.25, torch.float64)
    assert sum(item.paths > 0 for item in found.lengths) == MOST_LENGTHS
    assert found.lengths[0].paths == found.lengths[-1].paths == 1


def net_and_batch(name: str, **choices: object) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    net = create_model(name, in_chans=1, num_classes=3, image_size=8, **choices).double()
    return net, torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(6) % 3


KINDS = [
    ("cifar_resnet8", {"shortcut": "A"}),
    ("cifar_resnet8", {"shortcut": "B"}),
    ("cifar_resnet8", {"shortcut": "C"}),
    ("cifar_preact_resnet8", {}),
    ("mlp_resnet9", {"norm": "batch"}),
    ("mlp_resnet9", {"norm": "layer", "widths": (32, 16)}),
]


@pytest.mark.parametrize(("name", "choices"), KINDS)
def test_each_path_equals_the_network_with_its_other_ways_detached(name, choices):
    net, x, labels = net_and_batch(name, **choices)
    tape, net = record(net, x, labels), net.train()
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    for chosen in [(), (1,), (0, 2), (0, 1, 2)]:
        closed = [block.shortcut if number in chosen else block.drop for number, block in enumerate(blocks)]
        handles = [module.register_forward_hook(lambda _, __, out: out.detach()) for module in closed]
        F.cross_entropy(net(start := x.clone().requires_grad_()), labels).backward()
        for handle in handles:
            handle.remove()
        direction, size = tape.gradient(chosen)
        torch.testing.assert_close(direction * exp(size), start.grad, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("name", "choices"), KINDS)
def test_all_paths_together_are_the_whole_gradient(name, choices):
    net, x, labels = net_and_batch(name, **choices)
    tape = record(net, x, labels)
    paths = [chosen for k in range(4) for chosen in combinations(range(3), k)]
    found = [tape.gradient(chosen) for chosen in paths]
    whole = sum(direction * exp(size) for direction, size in found)
    F.cross_entropy(net.train()(start := x.requires_grad_()), labels).backward()
    torch.testing.assert_close(whole, start.grad, rtol=1e-9, atol=1e-14)
    one = found[-1][0] * exp(found[-1][1])
    assert (whole - one - start.grad).norm() > 1e-6 * start.grad.norm()


def test_looking_changes_nothing():
    net = create_model("cifar_resnet8", in_chans=1, dropout=0.5, stochastic_depth=0.5).train()
    net.stages[1].eval()
    net.stem.requires_grad_(False)
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    x, labels = torch.randn(6, 1, 8, 8), torch.arange(6)
    state = torch.random.get_rng_state()
    with torch.no_grad():
        first = path_lengths(net, x, labels, draws=1)
    assert torch.equal(torch.random.get_rng_state(), state)  # nothing was dropped
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert not x.requires_grad
    assert first == path_lengths(net, x, labels, draws=1)
    assert first != path_lengths(net, x, labels, draws=1, seed=1)


def test_few_paths_are_all_measured_whatever_the_seed():
    net, x, labels = net_and_batch("cifar_resnet8")
    seen = []
    first = path_lengths(net, x, labels, draws=3, on_progress=lambda done, total: seen.append((done, total)))
    assert [item.paths for item in first.lengths] == [1, 3, 3, 1]
    assert seen == [(n, 8) for n in range(1, 9)]
    assert first.lengths == path_lengths(net, x, labels, draws=3, seed=1).lengths


def test_branches_that_start_at_zero_carry_nothing():
    net, x, labels = net_and_batch("cifar_resnet14", zero_init_residual=True)
    found = path_lengths(net, x, labels, draws=1)
    assert [item.share for item in found.lengths] == [1, 0, 0, 0, 0, 0, 0]
    assert [item.log_magnitude is None for item in found.lengths] == [False] + [True] * 6
    assert (found.mean, found.low, found.high) == (0, 0, 0)


def test_zeros_between_measured_lengths_stay_zeros():
    found, _ = made(MOST_LENGTHS + 30, 0.0, torch.float64)
    assert [item.share for item in found.lengths] == [1] + [0] * (MOST_LENGTHS + 30)


def test_overflow_is_recorded_as_no_number_and_read_again(tmp_path):
    net, x, labels = net_and_batch("cifar_resnet8")
    with torch.no_grad():
        net.head.weight.fill_(float("inf"))
    found = path_lengths(net, x, labels)
    assert all(item.share is item.log_magnitude is None for item in found.lengths)
    assert found.mean is found.low is found.high is None
    write_record(tmp_path / "r.json", found)
    assert read_record(PathResult, tmp_path / "r.json") == found


@pytest.mark.parametrize("name", ["cifar_plain8", "mlp_plain9", "mlp_resnet3"])
def test_nets_without_shortcuts_are_refused(name):
    net = create_model(name, in_chans=1)
    with pytest.raises(ConfigError, match="no shortcuts"):
        path_lengths(net, torch.randn(2, 1, 8, 8), torch.arange(2))


def test_settings_that_measure_nothing_are_refused():
    net, x, labels = net_and_batch("cifar_resnet8")
    with pytest.raises(ConfigError, match="draws=0"):
        path_lengths(net, x, labels, draws=0)
    with pytest.raises(ConfigError, match="images=1"):
        path_lengths(net, x[:1], labels[:1])
    with pytest.raises(ConfigError, match="checkpoint_blocks"):
        path_lengths(recompute_blocks(net, 1), x, labels)


def test_plain_net_has_no_paths_and_a_deep_one_is_measured_on_fewer_images(data, monkeypatch):
    def paths(name: str):
        return measured(diagnosed(data, name), "paths", batch_size=8, path_draws=1).paths

    assert paths("cifar_plain8") is None
    assert paths("cifar_resnet8").n == 8
    monkeypatch.setattr("resnetlab.diagnostics.paths.DEEP", 2)
    assert paths("cifar_resnet14").n == 2
    assert paths("cifar_resnet8").n == 5


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0, 2, "short"), (0, 3, "between"), (3, 6, "between"), (4, 6, "long"), (None, None, "broken")],
)
def test_paths_are_short_or_long_beside_half_of_the_blocks(low, high, verdict):
    known, made = low is not None, diagnosis()
    paths = replace(path_result(known=known), low=low, high=high)
    found = explain(replace(made, net=replace(made.net, paths=paths)))
    assert found.verdict == verdict
    assert bool(found.advice) is (verdict != "between")
    assert ("through 2.0 of 6 branches on average; 95% of it" in found.sentences[0]) is known
    assert "n = 32 images" in found.sentences[0]


def test_paths_before_training_stand_beside_those_after():
    assert [line.partition(":")[0] for line in explain(diagnosis()).sentences] == [
        "resnet made, after 2 epochs", "resnet made, at initialisation"
    ]  # fmt: skip
