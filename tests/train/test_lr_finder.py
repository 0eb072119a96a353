"""The learning-rate range test against curves that are known."""

import copy
import json
from math import log10

import pytest
import torch
from torch import nn

from resnetlab.core.errors import ConfigError, DivergedError
from resnetlab.core.serialize import read_record
from resnetlab.models.zoo import create_model
from resnetlab.records.lr_curve import LrCurve, has_exploded, ramp, smooth, suggest
from resnetlab.report.lr_curve import draw_rate_curve
from resnetlab.train.config import TrainConfig
from resnetlab.train.lr_finder import find_lr
from tests.conftest import make_data

CONFIG = TrainConfig(batch_size=16, device="cpu")
TINY = {"num_classes": 3, "in_chans": 1, "image_size": 8}


def quadratic(rates: list[float], curvature: float) -> list[float]:
    """Losses of gradient descent on h w²/2 + 1 from w = 1, where step i multiplies w by 1 − rate h."""
    losses, w = [], 1.0
    for rate in rates:
        losses.append(curvature * w * w / 2 + 1)
        w *= 1 - rate * curvature
        if losses[-1] > 4 * losses[0]:
            break
    return losses


@pytest.mark.parametrize("curvature", [0.5, 10.0, 200.0])
def test_suggestion_for_a_quadratic_follows_its_curvature(curvature):
    """The excess of the loss is exp(−2 h S) with S the sum of the rates so far, which at a ramp of ratio r is about
    rate · r/(r − 1). Against log rate it falls fastest where 2 h S = 1; from rate 2/h on it grows."""
    rates = ramp(1e-6, 10, 100)
    losses = quadratic(rates, curvature)
    steepest, minimum = suggest(rates[: len(losses)], smooth(losses))
    ratio = rates[1] / rates[0]
    assert steepest == pytest.approx((ratio - 1) / ratio / 2 / curvature, rel=0.5)
    assert steepest < minimum < 2.5 / curvature


def test_steepest_fall_of_a_curve_solved_by_hand():
    rates = [10.0**i for i in range(6)]
    assert suggest(rates, [5, 4.9, 4, 2, 1.9, 7]) == (100, 1e4)
    assert suggest(rates, [1, 2, 3, 4, 5, 6]) == (None, None)


def test_ramp_grows_in_equal_ratios_and_smoothing_keeps_a_line_straight():
    rates = ramp(1e-6, 10, 8)
    assert [round(log10(rate), 9) for rate in rates] == [-6, -5, -4, -3, -2, -1, 0, 1]
    assert smooth([float(i) for i in range(50)])[2:-2] == pytest.approx(range(2, 48))


def test_explosion_is_four_times_the_lowest_running_loss():
    assert not has_exploded([1.0] * 20 + [20.0])
    assert has_exploded([1.0] * 20 + [40.0])


def test_network_stays_as_it_was_and_the_same_seed_gives_the_same_curve():
    net = create_model("cifar_resnet8", **TINY, seed=0)
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(5)
    state = torch.get_rng_state()
    curve = find_lr(net, make_data(), CONFIG, seed=0, steps=40)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    torch.manual_seed(99)
    assert find_lr(net, make_data(), CONFIG, seed=0, steps=40) == curve
    assert find_lr(net, make_data(), CONFIG, seed=1, steps=40) != curve
    assert len(curve.rates) == len(curve.losses) > make_data().train.labels.numel() // 16


def test_loss_that_explodes_ends_the_test_early():
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 3)

        def forward(self, x):
            return self.layer(x.flatten(1))

    curve = find_lr(Linear(), make_data(), CONFIG, seed=0, highest=1e6)
    assert curve.ended == "the loss exploded"
    assert len(curve.losses) < 100
    assert 0.001 < curve.steepest < 10


def test_settings_that_make_no_test_are_refused():
    net = create_model("cifar_resnet8", **TINY, seed=0)
    for wrong in ({"steps": 3}, {"lowest": 0.0}, {"lowest": 1.0, "highest": 0.1}):
        with pytest.raises(ConfigError):
            find_lr(net, make_data(), CONFIG, seed=0, **wrong)
    with torch.no_grad():
        net.head.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="first step"):
        find_lr(net, make_data(), CONFIG, seed=0)


def test_figure_of_a_curve_without_a_suggestion_is_drawn_too():
    curve = LrCurve(
        rates=ramp(1e-6, 1, 10),
        losses=[float(i + 1) for i in range(10)],
        smoothed=[float(i + 1) for i in range(10)],
        steepest=None,
        minimum=None,
        ended="the highest rate was reached",
    )
    assert draw_rate_curve(curve).png.startswith(b"\x89PNG")
    assert draw_rate_curve(curve) == draw_rate_curve(curve)


def test_verb_prints_a_flag_to_paste_and_writes_record_and_figure(tmp_path, capsys):
    from resnetlab.cli import main

    words = ["find-lr", "--model", "cifar_resnet8", "--steps", "60", "--out", str(tmp_path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    curve = read_record(LrCurve, tmp_path / "lr.json")
    assert f"--lr {curve.steepest:.2g}\n" in printed
    assert 0.005 < curve.steepest < 0.5
    assert json.loads((tmp_path / "lr.json").read_text())["rates"][0] == 1e-6
    assert {path.name for path in tmp_path.iterdir()} == {"lr.json", "lr.png", "lr.svg"}
    assert not (tmp_path / "last").exists()
