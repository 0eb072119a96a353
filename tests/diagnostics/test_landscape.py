import copy
from dataclasses import replace
from math import exp, expm1, log, log1p, prod

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError
from resnetlab.core.serialize import read_record, write_record
from resnetlab.data.loader import Loader
from resnetlab.diagnostics import landscape as module
from resnetlab.diagnostics.landscape import RULE, convex_share, directions, explain, flat_share, landscape
from resnetlab.models.zoo import create_model
from resnetlab.records.diagnosis import LandscapeResult
from resnetlab.train.evaluate import evaluate_batches
from tests.diagnostics.nets import diagnosed, measured
from tests.made import diagnosis, landscape_result


def batch(n=12, side=8, classes=3):
    return torch.randn(n, 1, side, side), torch.arange(n) % classes


def test_surface_of_a_linear_net_equals_the_hand_solved_one():
    """Loss of W + a δ + b η for every place of the grid, in float64 to 1e-10; the bias stays."""
    net = nn.Linear(4, 3).double()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    found = landscape(net, [(x[:2], y[:2]), (x[2:], y[2:])], side=5, reach=0.5, seed=3)
    own = dict(net.named_parameters())
    first, second = (directions(own, 3, axis)["weight"] for axis in "ab")
    w, bias = net.weight.detach(), net.bias.detach()
    for row, b in enumerate((-0.5, -0.25, 0, 0.25, 0.5)):
        for column, a in enumerate((-0.5, -0.25, 0, 0.25, 0.5)):
            logits = x @ (w + a * first + b * second).T + bias
            expected = (logits.logsumexp(dim=1) - logits[range(5), y]).mean().item()
            assert found.losses[row][column] == pytest.approx(expected, abs=1e-10)
    assert found.axis == [-0.5, -0.25, 0, 0.25, 0.5]
    assert (found.n, found.side, found.guess) == (5, 5, log(3))
    assert found.convex == 1, "cross-entropy is convex in the weights of a linear net"


def test_surface_of_two_weights_and_its_flat_share_are_those_solved_by_hand():
    """Logits (s v x, 0) with s, v > 0: L = log(1 + e^(-s v x)) for class 0, a function of m = s v alone.

    Its directions are ± v and ± s themselves, as a filter of one weight has no other: m = 3 (1 ± a ± b)(1 ± a ± b).
    """
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2, bias=False)).double()
    with torch.no_grad():
        net[0].weight.fill_(2.0)
        net[1].weight.copy_(torch.tensor([[1.5], [0.0]]))
    found = landscape(net, [(torch.ones(3, 1, dtype=torch.float64), torch.zeros(3).long())], side=5, reach=0.5)
    own = dict(net.named_parameters())
    signs = [[directions(own, 0, axis)[name][0, 0].sign().item() for name in ("0.weight", "1.weight")] for axis in "ab"]
    margins = np.array(
        [
            [3 * prod(1 + a * one + b * two for one, two in zip(*signs, strict=True)) for a in found.axis]
            for b in found.axis
        ]
    )
    np.testing.assert_allclose(np.array(found.losses), np.log1p(np.exp(-margins)), rtol=0, atol=1e-10)
    centre = log1p(exp(-3))
    assert found.centre == pytest.approx(centre, abs=1e-10)
    # log(1 + e^-m) ≤ centre + (ln 2 - centre) / 10 where m is at least this.
    least = -log(expm1(centre + (log(2) - centre) / 10))
    assert found.flat == pytest.approx((margins >= least).mean(), abs=1e-10)
    assert 0.1 < found.flat < 0.9


def test_each_filter_of_a_direction_is_as_long_as_the_networks_own():
    net = create_model("cifar_resnet8", in_chans=1)
    own = dict(net.named_parameters())
    found = directions(own, 0, "a")
    assert found.keys() == {name for name, weight in own.items() if weight.dim() > 1}
    assert "head.weight" in found
    for name, direction in found.items():
        torch.testing.assert_close(direction.flatten(1).norm(dim=1), own[name].detach().flatten(1).norm(dim=1))


def test_draw_of_one_weight_depends_on_seed_axis_and_name_alone():
    own = dict(create_model("cifar_resnet8", in_chans=1).named_parameters())
    whole, alone = directions(own, 0, "a"), directions({"head.weight": own["head.weight"]}, 0, "a")
    assert torch.equal(whole["head.weight"], alone["head.weight"])
    for seed, axis in ((1, "a"), (0, "b")):
        assert not torch.equal(directions(own, seed, axis)["head.weight"], whole["head.weight"])


def test_filter_of_zeros_stays_zero():
    found = directions({"w": torch.zeros(2, 3)}, 0, "a")["w"]
    assert torch.equal(found, torch.zeros(2, 3))


def test_surface_stays_where_weights_are_scaled_to_and_fro(monkeypatch):
    """relu(c W1 x) W2 / c is one function for all c > 0; its surface must be one too, and is not without the scale."""
    net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin[0].weight *= 10
        twin[2].weight /= 10
    batches = [(torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 3)]
    ours, theirs = (np.array(landscape(n, batches, side=5).losses) for n in (net, twin))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    monkeypatch.setattr(module, "_filter_norms", lambda weight: torch.ones(len(weight), dtype=torch.float64))
    ours, theirs = (np.array(landscape(n, batches, side=5).losses) for n in (net, twin))
    assert np.abs(ours - theirs).max() > 0.1


def test_centre_is_the_networks_own_loss_to_the_bit_and_nothing_is_changed(data):
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3).train()
    net.stages[1].eval()
    for images, labels in Loader(data.train, data.normalisation, 16).in_order():
        F.cross_entropy(net(images), labels)  # the running statistics move
    before, modes = copy.deepcopy(net.state_dict()), [part.training for part in net.modules()]
    loader = Loader(data.test, data.normalisation, 16)
    found = landscape(net, list(loader.in_order()), side=3)
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert found.centre == found.losses[1][1] == evaluate_batches(net.eval(), loader).loss
    assert found.n == len(loader)


def test_result_is_the_same_each_time_and_tells_of_its_progress():
    net, batches = create_model("mlp_resnet9"), [batch()]
    seen = []
    first = landscape(net, batches, side=3, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 9) for n in range(1, 10)]
    assert first == landscape(net, batches, side=3)
    assert first != landscape(net, batches, side=3, seed=1)


def test_overflow_is_recorded_as_no_number_and_read_again(tmp_path):
    net = create_model("mlp_resnet9")
    with torch.no_grad():
        net.head.weight.fill_(3e38)
    found = landscape(net, [batch()], side=3)
    assert found.centre is None
    assert found.flat is None
    assert None in found.losses[0]
    write_record(tmp_path / "r.json", found)
    assert read_record(LandscapeResult, tmp_path / "r.json") == found


def test_centre_stands_where_the_directions_overflow():
    net = nn.Linear(4, 3)
    with torch.no_grad():
        net.weight.fill_(3e38)
        net.bias.zero_()
    found = landscape(net, [(torch.zeros(5, 4), torch.zeros(5, dtype=torch.int64))], side=3)
    assert found.centre == pytest.approx(log(3))
    assert found.losses[0][0] is None


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"side": 4}, "side=4"),
        ({"side": 1}, "side=1"),
        ({"reach": 0.0}, "reach=0.0"),
        ({"reach": float("nan")}, "reach"),
    ],
)
def test_settings_that_make_no_square_are_refused(wrong, named):
    with pytest.raises(ConfigError, match=named):
        landscape(create_model("mlp_resnet9"), [batch()], **wrong)
    with pytest.raises(ConfigError, match="batches"):
        landscape(create_model("mlp_resnet9"), [])


A, B = np.meshgrid(np.arange(-5.0, 6), np.arange(-5.0, 6))


@pytest.mark.parametrize(
    ("surface", "share"),
    [
        (A**2 + 3 * B**2 + A * B, 1.0),
        (A + 2 * B, 1.0),
        (np.full_like(A, 7.0), 1.0),
        (A**2 - B**2 + 100, 0.0),
        (A * B + 100, 0.0),
        (-(A**2) - B**2 + 100, 0.0),
        (A**3 + B**2 + 200, 5 / 9),
        # The Hessian ((2, c), (c, 2)) has the curvatures 2 - c and 2 + c; -0.03 is below 1 % of 4.03, -0.05 is not.
        (A**2 + B**2 + 1.9 * A * B, 1.0),
        (A**2 + B**2 + 2.03 * A * B + 200, 1.0),
        (A**2 + B**2 - 2.05 * A * B + 200, 0.0),
    ],
    ids=["bowl", "slope", "level", "saddle", "turned saddle", "hill", "half", "narrow", "nearly", "not quite"],
)
def test_convex_share_of_a_known_surface_is_exact(surface, share):
    assert convex_share(surface) == pytest.approx(share, abs=1e-12)


def test_rounding_is_no_curvature_and_a_real_bend_is():
    noise = np.random.default_rng(0).uniform(-1e-7, 1e-7, A.shape)
    assert convex_share(2.0 + noise) == 1
    assert convex_share(2.0 + 1e4 * noise) < 0.5


def test_places_beside_no_number_are_left_out():
    bowl = A**2 + B**2
    bowl[0, 0] = np.inf
    bowl[5, 5] = np.nan
    assert convex_share(bowl) == 1
    assert convex_share(np.full((3, 3), np.nan)) is None


def test_flat_share_counts_the_places_within_a_tenth_of_the_way():
    bowl = A**2 + B**2  # 0 in the centre; a tenth of the way to 40 is 4
    assert flat_share(bowl, 40.0) == pytest.approx((bowl <= 4).sum() / 121)
    assert (bowl <= 4).sum() == 13
    assert flat_share(bowl + 20, 60.0) == pytest.approx(13 / 121), "the way begins at the centre, not at zero"
    assert flat_share(bowl + 41, 40.0) is None
    assert flat_share(np.full((3, 3), np.nan), 40.0) is None


def test_the_rule_tells_its_threshold():
    assert f"{module.LITTLE:.0%} of the gap" in RULE


def test_net_and_counterpart_are_measured_on_the_same_images_that_the_seed_chooses(data):
    seen = []

    def surface(name: str, seed: int = 0):
        one = diagnosed(data, name)
        handle = one.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        settings = {"landscape_side": 3, "landscape_reach": 0.5, "landscape_images": 10, "seed": seed}
        found = measured(one, "landscape", **settings).landscape
        handle.remove()
        return found, seen[-1]

    (net, first), (plain, second), (_, other) = (
        surface("cifar_resnet8"),
        surface("cifar_plain8"),
        surface("cifar_resnet8", 1),
    )
    assert (net.n, net.side, net.axis) == (10, 3, [-0.5, 0.0, 0.5])
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert net.losses != plain.losses


def around(plain_net: bool = False, **changes):
    """A diagnosis with that surface around its net, which has no counterpart."""
    made = diagnosis()
    net = made.trained["plain" if plain_net else "this net"]
    return replace(made, net=replace(net, landscape=replace(landscape_result(), **changes)), plain=None)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"convex": 0.9}, "smooth"), ({"convex": 0.89}, "between"), ({"convex": 0.5}, "rugged"),
        ({"flat": None}, "untrained"), ({"centre": None, "flat": None}, "broken"), ({"convex": None}, "broken"),
    ],
)  # fmt: skip
def test_surface_is_judged_by_where_it_is_convex(changes, verdict):
    found = explain(around(**changes))
    assert found.verdict == verdict
    assert bool(found.advice) is (verdict not in ("smooth", "between"))
    assert "n = 1,000 training images" in found.sentences[0]


def test_surface_of_the_counterpart_is_told_and_a_rugged_plain_net_is_sent_to_its_residual_one():
    assert "plain made" in explain(diagnosis()).sentences[1]
    (advice,) = explain(around(plain_net=True, convex=0.2)).advice
    assert "no shortcuts" in advice
    assert "no shortcuts" not in explain(around(convex=0.2)).advice[0]
