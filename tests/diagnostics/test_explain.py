from dataclasses import replace

import pytest

from resnetlab.diagnostics import explain
from resnetlab.records.gradients import BlockGradient, judge
from tests.made import block_reading, diagnosis, lesion_reading, net_reading


def finding(part: str):
    return next(finding for finding in diagnosis().findings if finding.part == part)


def test_healthy_gradients_give_numbers_and_no_advice():
    found = finding("gradients")
    assert (found.verdict, found.advice) == ("healthy", [])
    assert "changes by +0.00 orders of magnitude, +0.000 a block: healthy" in found.sentences[0]
    assert "75% of it arrives through the shortcut" in found.sentences[0]
    assert "through the shortcut" not in found.sentences[2], "the plain twin has none"


def test_growth_is_told_in_all_and_for_each_step_between_blocks():
    """Three blocks have two steps: ten times less in each is one order a step, two in all."""
    gradients = [BlockGradient(block=f"stages.0.{n}", gradient_norm=0.1**n, weight_norm=1.0) for n in range(3)]
    net = replace(net_reading(), gradients=gradients, flow=judge(gradients))
    sentence = explain.explain_gradients(net).sentences[0]
    assert "changes by +2.00 orders of magnitude, +1.000 a block" in sentence


@pytest.mark.parametrize(("factor", "verdict"), [(0.01, "exploding"), (100.0, "vanishing")])
def test_advice_follows_the_verdict(factor, verdict):
    gradients = [BlockGradient(block=f"stages.0.{n}", gradient_norm=factor**n, weight_norm=1.0) for n in range(3)]
    net = replace(net_reading(plain=True), gradients=gradients, flow=judge(gradients))
    found = explain.explain_gradients(net)
    assert found.verdict == verdict
    assert len(found.advice) == 2
    assert "no shortcuts" in found.advice[1]
    assert len(explain.explain_gradients(replace(net, plain=False)).advice) == 1


def test_responses_of_a_pair_are_compared_as_in_figure_seven():
    assert "1.500 in resnet made, smaller than the 2.000 in plain made" in finding("residuals").sentences[-1]


def test_dead_channels_and_idle_blocks_are_worth_advice():
    net = replace(net_reading(), blocks=[block_reading(0, dead=0.2), block_reading(1, ratio=0.001, dead=0.2)])
    advice = explain.explain_residuals(net).advice
    assert "stages.0.1 change next to nothing" in advice[0]
    assert "20% of the channels are dead" in advice[1]
    assert finding("residuals").advice == []


def test_signal_names_steady_settings_where_the_own_is_not():
    found = finding("signal")
    assert found.verdict == "exploding"
    assert "1 of 3 settings are steady" in found.sentences[0]
    assert "start zero" in found.advice[0]


@pytest.mark.parametrize(
    ("errors", "intact", "verdict"),
    [((0.1, 0.18, 0.9), 0.1, "robust"), ((0.1, 0.5, 0.9), 0.1, "fragile"), ((0.1, 0.3, 0.9), 0.1, "between"),
     ((0.9, 0.9, 0.9), 0.85, "untrained")],
)  # fmt: skip
def test_lesion_verdict_is_the_median_share_of_what_can_be_lost(errors, intact, verdict):
    net = replace(net_reading(), lesion=lesion_reading(*errors, intact=intact))
    found = explain.explain_lesion(net, None)
    assert found.verdict == verdict
    assert "n = 50 test images" in found.sentences[0]
    if verdict == "robust":
        assert (
            "without one block +8.00 points in the median of 3, at worst +80.00 without stages.0.2"
            in (found.sentences[0])
        )
        assert found.advice[0].startswith("Without stages.0.0, each alone, the error is not higher")


def test_identity_says_whether_the_bits_are_equal():
    reading = diagnosis().identity
    assert explain.explain_identity(reading).verdict == "equal"
    assert explain.explain_identity(replace(reading, equal=False)).verdict == "not equal"
