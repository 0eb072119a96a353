"""Gradients of neighbouring images: alike in a linear net, white noise where the net swings, and as the loop says."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnetlab.diagnostics.load import in_memory
from resnetlab.diagnostics.shattering import DISTANCES, MOST_BLOCKS, explain, judge
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.shortcuts import IdentityShortcut
from resnetlab.train.moments import neighbours, spread
from tests.diagnostics.nets import context, diagnosed, measured
from tests.made import diagnosis, shattering_result


class Swinging(nn.Module):
    """Two blocks of x + x/2, and logits ± Σ sin(k x) behind them; k = 0 gives ± Σ x, a linear net."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = k
        blocks = [ResidualBlock(nn.Conv2d(1, 1, 1, bias=False), IdentityShortcut(), nn.Identity()) for _ in range(2)]
        self.body = nn.Sequential(*blocks)
        for block in blocks:
            nn.init.constant_(block.branch.weight, 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        total = ((self.k * x).sin() if self.k else x).sum(dim=(1, 2, 3))
        return torch.stack([total, -total], dim=1)


def result(k: float):
    images = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return measured(in_memory(Swinging(k), (images, torch.arange(12) % 2)), "shattering", batch_size=12).shattering


def test_linear_net_has_gradients_that_are_alike_at_any_distance():
    """∂L/∂x = (p₁ - y₁) · 2 · 1.5² for every pixel, whose sign is that of the label."""
    found = result(0)
    assert [block.block for block in found.blocks] == ["body.0", "body.1"]
    for block in found.blocks:
        assert block.means == pytest.approx([1.0] * 3, abs=1e-6)
        assert block.errors == pytest.approx([0.0] * 3, abs=1e-6)
    assert (found.n, found.distances, judge(found)) == (12, list(DISTANCES), "correlated")


def test_white_noise_is_shattered():
    """The phases of neighbours are thousands of turns apart: of 64 independent cosines a side the mean cosine has a
    standard deviation of 1/8, of 12 images 0.036."""
    found = result(1e6)
    assert abs(found.blocks[0].means[0]) < 3 * 0.036
    assert judge(replace(found, blocks=[replace(found.blocks[0], means=[0.01] * 3)])) == "shattered"


def test_cosines_are_those_of_backward_in_training_mode(data):
    net = diagnosed(data, "cifar_plain14")
    given = context(net, "shattering", batch_size=8)
    images, labels = given.batch
    model, sides = net.net.train(), []
    for batch in (images, neighbours(images, given.config.seed, DISTANCES[1])):
        x = model.stem(batch).detach().requires_grad_()
        F.cross_entropy(model.forward_head(model.finish(model.stages(x))), labels).backward()
        sides.append(x.grad.flatten(1))
    found = measured(diagnosed(data, "cifar_plain14"), "shattering", batch_size=8).shattering
    cosine = F.cosine_similarity(*sides)
    assert found.blocks[0].means[1] == pytest.approx(cosine.mean().item(), abs=1e-4)
    assert found.blocks[0].errors[1] == pytest.approx(cosine.std().item() / 8**0.5, abs=1e-4)
    assert len(found.blocks) == 6


def test_of_very_many_blocks_some_are_measured_evenly_spread():
    blocks = {str(n): nn.Identity() for n in range(500)}
    places = list(map(int, spread(blocks, MOST_BLOCKS)))
    assert (len(places), places[0], places[-1]) == (MOST_BLOCKS, 0, 499)
    assert {b - a for a, b in pairwise(places)} == {7, 8}
    assert spread(blocks, 500) == blocks


def test_network_is_left_as_it_was(data):
    net = diagnosed(data)
    net.net.eval()
    before = {name: value.clone() for name, value in net.net.state_dict().items()}
    assert measured(net, "shattering", batch_size=8) == measured(net, "shattering", batch_size=8)
    assert all(torch.equal(value, before[name]) for name, value in net.net.state_dict().items())
    assert not net.net.training
    assert not any(module._forward_pre_hooks for module in net.net.modules())


def test_deep_net_is_measured_with_recomputed_blocks(monkeypatch, data):
    whole = measured(diagnosed(data, "cifar_resnet14"), "shattering", "rank", batch_size=8)
    monkeypatch.setattr("resnetlab.diagnostics.probes.DEEP", 2)
    again = measured(diagnosed(data, "cifar_resnet14"), "shattering", "rank", batch_size=8)
    assert (again.shattering, again.rank) == (whole.shattering, whole.rank)


@pytest.mark.parametrize(
    ("mean", "verdict"), [(0.021, "correlated"), (0.02, "shattered"), (-0.5, "shattered"), (None, "broken")]
)
def test_verdict_asks_whether_the_mean_can_be_told_from_noise(mean, verdict):
    assert judge(shattering_result(mean, 0.9)) == verdict


def test_finding_says_the_numbers_of_both_nets_and_advises_a_shattered_one():
    whole = diagnosis()
    finding = explain(whole)
    assert finding.verdict == "correlated"
    assert finding.advice == []
    assert (
        "a cosine of 0.600 ± 0.010 at a distance of 1.0%, 0.500 ± 0.010 at a distance of 10.0%" in finding.sentences[0]
    )
    assert finding.sentences[0].endswith("at the last block 0.900 at 1.0%.")
    assert "0.010 ± 0.010" in finding.sentences[2]
    turned = explain(replace(whole, net=whole.plain))
    assert turned.verdict == "shattered"
    assert len(turned.advice) == 2


def test_net_that_is_broken_has_no_numbers_but_a_verdict(data):
    net = diagnosed(data)
    with torch.no_grad():
        net.net.head.weight.fill_(float("nan"))
    found = measured(net, "shattering", batch_size=8).shattering
    assert judge(found) == "broken"
    assert (
        "no finite number" in explain(replace(diagnosis(), net=replace(diagnosis().net, shattering=found))).sentences[0]
    )


def test_network_without_blocks_is_told_so(data):
    from resnetlab.diagnostics import shattering

    net = replace(diagnosed(data), net=nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    assert shattering.applies(net, context(net)) == "it has no blocks"
