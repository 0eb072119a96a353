from dataclasses import replace

import pytest

from resnetlab.diagnostics.gradients import explain
from resnetlab.records.gradients import BlockGradient, judge
from tests.made import diagnosis


def falling(factor: float, plain: bool = False):
    """A diagnosis of three blocks, each with ``factor`` times the gradient of the one before."""
    gradients = [BlockGradient(block=f"stages.0.{n}", gradient_norm=factor**n, weight_norm=1.0) for n in range(3)]
    found = diagnosis()
    net = found.trained["plain" if plain else "this net"]
    return replace(found, net=replace(net, gradients=gradients, flow=judge(gradients)))


def test_healthy_gradients_give_numbers_and_no_advice():
    found = explain(diagnosis())
    assert (found.verdict, found.advice) == ("healthy", [])
    assert "changes by +0.00 orders of magnitude, +0.000 a block: healthy" in found.sentences[0]
    assert "75% of it comes through the shortcut" in found.sentences[0]
    assert "through the shortcut" not in found.sentences[2], "the plain net has none"


def test_growth_is_told_in_all_and_for_each_step_between_blocks():
    """Three blocks have two steps: ten times less in each is one order a step, two in all."""
    assert "changes by +2.00 orders of magnitude, +1.000 a block" in explain(falling(0.1)).sentences[0]


@pytest.mark.parametrize(("factor", "verdict"), [(0.01, "exploding"), (100.0, "vanishing")])
def test_advice_follows_the_verdict(factor, verdict):
    found = explain(falling(factor, plain=True))
    assert found.verdict == verdict
    assert len(found.advice) == 2
    assert "no shortcuts" in found.advice[1]
    assert len(explain(falling(factor)).advice) == 1
