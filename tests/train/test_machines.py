"""One run over two machines, which are network namespaces, and what the loss of one costs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnetlab.core.files import read_folder
from resnetlab.core.serialize import read_record
from resnetlab.records.run import RunRecord
from tests.conftest import ROOT
from tests.train.machines import ranks_of, start, two_machines
from tests.train.runs import without_time

pytestmark = pytest.mark.long
PATIENCE = 120.0
SILENCE = 10.0
"""Seconds after which a rank gives the other up; it is half an hour for users."""


@pytest.fixture(scope="module")
def _machines():
    with two_machines() as made:
        if not made:
            pytest.skip("no network namespaces here: they need ip and the rights of root")
        yield


def words(out: Path, epochs: int) -> list[str]:
    given = f"train --model cifar_resnet8 --batch-size 64 --device cpu --epochs {epochs} --save-every-seconds 0"
    return [*given.split(), "--resume", "auto", "--out", str(out)]


def on_one_machine(out: Path, epochs: int) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "resnetlab"]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, *words(out, epochs)], cwd=ROOT, env=settings, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    try:
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    return process.returncode, said


def same(ours: Path, theirs: Path) -> bool:
    records = [read_record(RunRecord, out / "record.json") for out in (ours, theirs)]
    files = [read_folder(out / "last")[1] for out in (ours, theirs)]
    assert [record.environment["ranks"] for record in records] == [2, 2]
    bits = ("model.safetensors", "training.safetensors")
    histories = [without_time(record.history) for record in records]
    return histories[0] == histories[1] and all(files[0][name] == files[1][name] for name in bits)


@pytest.mark.usefixtures("_machines")
def test_two_machines_give_the_bits_of_two_ranks_on_one(tmp_path):
    both = [start(number, words(tmp_path / "two", 2), PATIENCE) for number in (0, 1)]
    for code, said in [end(process) for process in both]:
        assert code == 0, said
    on_one_machine(tmp_path / "one", 2)
    assert same(tmp_path / "two", tmp_path / "one")


@pytest.mark.usefixtures("_machines")
def test_machine_that_is_killed_ends_the_other_and_starting_both_again_resumes(tmp_path):
    out, epochs = tmp_path / "two", 5
    both = [start(number, words(out, epochs), SILENCE) for number in (0, 1)]
    deadline = time.monotonic() + PATIENCE
    while not (out / "last" / "manifest.json").exists():
        assert all(process.poll() is None for process in both)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for pid in (*ranks_of(both[1].pid), both[1].pid):
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    code, said = end(both[0])
    assert time.monotonic() - began < SILENCE + 50
    assert code != 0
    assert "error: another rank was lost or cannot be reached" in said
    assert "start all ranks again with --resume auto" in said
    both[1].communicate()
    assert not (out / "record.json").exists()
    again = [start(number, words(out, epochs), PATIENCE) for number in (0, 1)]
    for code, said in [end(process) for process in again]:
        assert code == 0, said
    on_one_machine(tmp_path / "one", epochs)
    assert same(out, tmp_path / "one")
