"""Ranks of what blocks give, on matrices that are solved by hand."""

from dataclasses import replace

import pytest
import torch

from resnetlab.diagnostics.rank import explain, judge, measure_rank
from tests.diagnostics.nets import context, diagnosed, measured
from tests.made import diagnosis, rank_result


def test_ranks_of_hand_solved_outputs():
    """N orthogonal rows less their mean are N - 1 even directions, and the mean has 1/N of their squares; rows that
    are two images, each twice, differ in one direction."""
    found = measure_rank("b", 2 * torch.eye(5, 20).view(5, 4, 5))
    assert (found.block, found.effective, found.stable) == ("b", pytest.approx(4), pytest.approx(4))
    assert found.common == pytest.approx(1 / 5)
    twice = measure_rank("b", torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 2))
    assert (twice.effective, twice.stable, twice.common) == (pytest.approx(1), pytest.approx(1), pytest.approx(0.5))
    same = measure_rank("b", torch.ones(3, 7))
    assert (same.effective, same.stable, same.common) == (0.0, 0.0, pytest.approx(1))
    broken = measure_rank("b", torch.tensor([[1.0], [float("inf")]]))
    assert (broken.effective, broken.stable, broken.common) == (None, None, None)


def test_every_block_is_measured_as_it_gives_in_training_mode(data):
    net = diagnosed(data, "cifar_plain14")
    given, outputs = context(net, "rank", batch_size=8), []
    hooks = [block.register_forward_hook(lambda _block, _inputs, y: outputs.append(y)) for block in net.blocks]
    net.net.train()(given.batch[0])
    for hook in hooks:
        hook.remove()
    found = measured(diagnosed(data, "cifar_plain14"), "rank", batch_size=8).rank
    assert (found.n, len(found.blocks)) == (8, 6)
    for block, output in zip(found.blocks, outputs, strict=True):
        rows = output.flatten(1).double()
        values = torch.linalg.svdvals(rows - rows.mean(dim=0))
        share = values / values.sum()
        assert block.effective == pytest.approx(torch.special.entr(share).sum().exp().item(), rel=1e-3)
        assert block.stable == pytest.approx(((values**2).sum() / values[0] ** 2).item(), rel=1e-3)


def test_nothing_of_the_others_is_built(data):
    found = measured(diagnosed(data), "rank", batch_size=8)
    assert (found.gradients, found.blocks, found.shattering, found.signal) == ([], [], None, None)
    assert len(found.rank.blocks) == 3


def test_finding_says_the_ranks_and_no_more():
    finding = explain(diagnosis())
    assert finding.verdict == "9.0 of 31"
    assert (
        "from 20.0 after the first block to 9.0 after the last, the stable rank from 10.0 to 4.5"
        in finding.sentences[0]
    )
    assert "50% of what the last block gives is common to all images" in finding.sentences[0]
    assert (len(finding.sentences), finding.advice) == (3, [])
    assert judge(rank_result(3.0, None)) == "broken"
    broken = replace(diagnosis().net, rank=rank_result(None, None))
    assert "no finite number" in explain(replace(diagnosis(), net=broken)).sentences[0]
