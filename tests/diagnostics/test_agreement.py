"""Gradients of different batches: alike by hand, opposed by hand, and as the loop says."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from resnetlab.data.loader import Loader
from resnetlab.diagnostics.agreement import BATCHES, agreement, applies, explain, judge
from tests.diagnostics.nets import context, diagnosed, measured
from tests.made import agreement_result, diagnosis


def test_agreement_of_hand_solved_gradients():
    """Of (1, 0), (0, 2) and (-3, 0) the pairs have the cosines 0, -1 and 0."""
    given = [[torch.tensor([1.0]), torch.tensor([0.0])], [torch.tensor([0.0]), torch.tensor([2.0])]]
    given.append([torch.tensor([-3.0]), torch.tensor([0.0])])
    found = agreement("b", given)
    assert (found.block, found.mean, found.least) == ("b", pytest.approx(-1 / 3), pytest.approx(-1))
    assert agreement("b", [given[0], given[0]]).mean == pytest.approx(1)
    zero = [torch.zeros(1), torch.zeros(1)]
    assert agreement("b", [given[0], zero]).mean is None


def test_gradients_are_those_of_the_first_batches_in_training_mode(data, monkeypatch):
    monkeypatch.setattr("resnetlab.diagnostics.agreement.BATCHES", 2)
    net = diagnosed(data, "cifar_plain14")
    loader = Loader(data.train, data.normalisation, 8)
    sides = []
    for images, labels in list(loader.shuffled(0, epoch=1))[:2]:
        net.net.train().zero_grad()
        F.cross_entropy(net.net(images), labels).backward()
        block = net.net.stages[0][0].branch
        sides.append(torch.cat([p.grad.flatten() for p in block.parameters() if p.dim() > 1]))
    expected = F.cosine_similarity(*sides, dim=0).item()
    found = measured(diagnosed(data, "cifar_plain14"), "agreement", batch_size=8).agreement
    assert (found.n, found.batches, found.whole.block) == (8, 2, "all weights")
    (first,) = [one for one in found.blocks if one.block == "stages.0.0"]
    assert first.mean == first.least == pytest.approx(expected, abs=1e-4)
    assert len({block.block for block in found.blocks}) == 8


def test_one_batch_agrees_with_none(data):
    net = diagnosed(data)
    assert applies(net, context(net, batch_size=len(data.train.labels))) is not None
    assert applies(net, context(net, batch_size=8)) is None
    assert BATCHES == 4


def test_finding_says_where_they_agree():
    finding = explain(diagnosis())
    assert finding.verdict == "cosine 0.20"
    assert "0.200 over all weights, from -0.100 in stages.0.1 to 0.400 in stages.0.2." in finding.sentences[0]
    assert judge(agreement_result(None)) == "broken"
    broken = replace(diagnosis().net, agreement=agreement_result(None))
    assert "no finite number" in explain(replace(diagnosis(), net=broken)).sentences[0]
