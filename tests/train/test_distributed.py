"""Two ranks train as one does: on a network in float64, so that what remains is the order of sums."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close

from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.data.loader import Loader
from resnetlab.records.gradients import GradientMoment
from resnetlab.records.run import EpochRecord
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.evaluate import evaluate_batches
from resnetlab.train.loop import fit
from resnetlab.train.run import run_recipe
from resnetlab.train.sync_bn import SyncBatchNorm
from tests.conftest import ROOT, make_data
from tests.train.ranks import CASES, RUN, Double, normalise, single, timeless

SAME = [name for name in CASES if name != "bn of each rank"]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.int64: 0}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder where two ranks have left what they did."""
    out = tmp_path_factory.mktemp("ranks")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.train.ranks", out]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, *map(str, launch)], cwd=ROOT, env=settings, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def noted(two, name: str, rank: int):
    return json.loads((two / f"{name}.{rank}.json").read_text())


def farthest(found: dict[str, torch.Tensor], net: nn.Module) -> float:
    """The largest difference of any tensor, relative to 1 or to the tensor's largest value."""
    return max(
        ((found[name] - value).abs().max() / value.abs().max().clamp_min(1)).item()
        for name, value in net.state_dict().items()
    )


@pytest.mark.parametrize("name", SAME)
def test_two_ranks_train_as_one_does(two, name):
    make, config = CASES[name]
    net = make()
    history = fit(net, make_data(), config, seed=0)
    double = isinstance(net, Double)
    found = [load_file(two / f"{name}.{rank}.st") for rank in (0, 1)]
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())
    assert farthest(found[0], net) < TOLERANCE[torch.float64 if double else torch.float32]
    assert noted(two, name, 0) == noted(two, name, 1)
    for ours, theirs in zip(timeless(history), noted(two, name, 0), strict=True):
        ours, theirs = (from_plain(EpochRecord, record, "") for record in (ours, theirs))
        assert theirs.test.n == 40
        assert (theirs.test.error, theirs.train.error) == (ours.test.error, ours.train.error)
        assert theirs.running_loss == pytest.approx(ours.running_loss, rel=1e-9 if double else 1e-4)
        assert theirs.running_error == ours.running_error


def test_ranks_that_normalise_alone_train_otherwise(two):
    """The control of the test above."""
    make, config = CASES["bn of each rank"]
    net = make()
    fit(net, make_data(), config, seed=0)
    found = [load_file(two / f"bn of each rank.{rank}.st") for rank in (0, 1)]
    assert farthest(found[0], net) > 1e-3
    # Yet all ranks hold and evaluate the network that the leading one keeps.
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())
    assert noted(two, "bn of each rank", 0) == noted(two, "bn of each rank", 1)


def test_evaluation_by_two_ranks_gives_the_bits_of_one(two):
    expected = []
    for samples in (1, 7, 8, 40, 41):
        data = make_data(test=samples)
        expected.append(as_plain(evaluate_batches(single(), Loader(data.test, data.normalisation, 8))))
    assert noted(two, "evaluate", 0) == noted(two, "evaluate", 1) == expected
    assert [metrics["n"] for metrics in expected] == [1, 7, 8, 40, 41]


def test_two_ranks_resume_within_an_epoch_to_equal_bits(two):
    whole = load_file(two / "whole.0.st")
    for rank in (0, 1):
        assert all(torch.equal(value, whole[key]) for key, value in load_file(two / f"resumed.{rank}.st").items())
        assert noted(two, "resumed", rank) == noted(two, "whole", 0)
    ours, theirs = (read_checkpoint(two / f"{run} of 0" / "last") for run in ("whole", "cut"))
    assert all(torch.equal(value, theirs.training[key]) for key, value in ours.training.items())


def test_the_leading_rank_alone_writes(two):
    assert (two / "whole of 0" / "last").is_dir()
    assert not (two / "whole of 1").exists()


def test_batches_that_ranks_cannot_share_are_refused(two):
    for rank in (0, 1):
        messages = noted(two, "refuse", rank)
        assert len(messages) == 3
        assert messages[0].startswith("batch_size=15 cannot be shared by 2 ranks and 1 micro-batches; give a multiple")
        assert messages[2].endswith("give a multiple of 8, at least 16")


def test_a_loss_that_one_rank_alone_sees_ends_both_at_the_next_question(two):
    for rank in (0, 1):
        assert noted(two, "diverge", rank)[0].startswith("the loss became nan at step 4;")
        assert noted(two, "diverge", rank)[1] == 10


def test_statistics_of_norms_are_not_sent_before_each_step_but_other_buffers_are(two):
    assert noted(two, "buffers", 0) == noted(two, "buffers", 1) == [False, False, True]


def test_batch_norm_over_ranks_equals_torch_on_the_whole_batch(two):
    expected = normalise(nn.BatchNorm2d(4).double(), slice(0, 8))
    first, second = (load_file(two / f"norm.{rank}.st") for rank in (0, 1))
    for name in ("y", "x.grad"):
        assert_close(torch.cat([first[name], second[name]]), expected[name], rtol=1e-9, atol=1e-10, msg=name)
    for name in ("weight.grad", "bias.grad", "running_mean", "running_var", "num_batches_tracked"):
        assert_close(first[name], expected[name], rtol=1e-9, atol=1e-10, msg=name)
        assert torch.equal(first[name], second[name])


def test_batch_norm_of_one_rank_alone_is_torchs():
    ours, theirs = (normalise(norm(4).double(), slice(0, 8)) for norm in (SyncBatchNorm, nn.BatchNorm2d))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_run_of_two_ranks_has_one_record_and_is_found_again(two):
    first, again = noted(two, "run", 0)
    assert first == again == noted(two, "run", 1)[0]
    record = json.loads((two / "run" / "record.json").read_text())
    assert record["environment"]["ranks"] == 2
    assert len(record["history"]) == 1


def test_leading_rank_looks_at_the_images_and_the_other_opens_none(two):
    """And looks at them as the leading one did; where none can read them, each says so."""
    leading, other = (noted(two, "read", rank) for rank in range(2))
    assert leading["data"]["check"] == "head"
    assert other["data"] == leading["data"]
    assert leading["opened"] > other["opened"] == 0
    assert [len(one["errors"]) for one in (leading, other)] == [1, 1]


def test_command_of_two_ranks_gives_one_progress_and_one_result(two):
    codes, printed, said = zip(*(noted(two, "command", rank) for rank in (0, 1)), strict=True)
    assert codes == (0, 0), said
    assert "".join(printed).count("test loss") == 1
    assert "".join(said).count("epoch 1/1") == 1
    assert "batch: 256 images a step = 2 ranks × 1 micro-batch × 128" in "".join(said)


def test_gradients_of_two_ranks_are_traced_as_those_of_one(two, tmp_path, monkeypatch):
    """Between the steps of a run with sync_bn, where the ranks sum statistics in the measuring pass too. One rank
    measures on what is the leading one's share of two."""
    monkeypatch.setattr("resnetlab.train.gradients.MOST_TRACED", RUN.training.batch_size // 2)
    assert noted(two, "trace", 0) == noted(two, "trace", 1)
    found = from_plain(list[GradientMoment], noted(two, "trace", 0), "")
    expected = run_recipe(RUN, tmp_path / "run", page=False).gradient_trace
    assert [one.step for one in found] == [one.step for one in expected] == [0, 1, 2, 3]
    for ours, theirs in zip(expected, found, strict=True):
        assert (theirs.first, theirs.last, theirs.growth) == pytest.approx(
            (ours.first, ours.last, ours.growth), rel=1e-3
        )
