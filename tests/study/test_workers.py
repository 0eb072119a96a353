"""Several workers do a study as one does, and one of them may be lost."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from resnetlab.core.errors import ConfigError
from resnetlab.data.config import AugmentConfig
from resnetlab.study import RUNS, NoStudyCallback, Study, run_study, study_command
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.config import TrainConfig
from resnetlab.train.folder import RECORD
from resnetlab.train.recipe import Recipe
from tests.conftest import ROOT
from tests.study.conftest import timeless

CONFIG = Study(
    recipe=Recipe(
        model="cifar_resnet8",
        training=TrainConfig(epochs=4, batch_size=128, device="cpu", augment=AugmentConfig(crop_padding=0)),
    ),
    axes={"shortcut": ("A", "none")},
    seeds=2,
)
QUICK = replace(
    CONFIG, recipe=replace(CONFIG.recipe, model="mlp_resnet8", training=replace(CONFIG.recipe.training, epochs=1))
)
PATIENCE = 100.0


def words(out: Path) -> list[str]:
    given = shlex.split(study_command(CONFIG))[1:]
    given[given.index("STUDY")] = str(out)
    return ["-m", "resnetlab", *given]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "study"
    run_study(CONFIG, out)
    return out


STARTED: "list[subprocess.Popen[str]]" = []


@pytest.fixture(autouse=True)
def _no_process_is_left():
    yield
    for process in STARTED:
        if process.poll() is None:
            process.terminate()
    STARTED.clear()


def start(command: list[str], **more: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


def torchrun(out: Path, restarts: int = 0) -> "subprocess.Popen[str]":
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", str(restarts)]
    return start([*launch, *words(out)])


def test_two_workers_do_each_run_once_and_give_the_results_of_one(tmp_path, alone):
    process = torchrun(tmp_path / "two")
    shown, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert timeless(tmp_path / "two") == timeless(alone)
    # The leading worker tells of every run, of the other's as well, and it alone tells.
    assert [said.count(f"[{number}/4]") for number in range(1, 5)] == [1] * 4
    assert shown.count("After the last epoch") == 1
    records = [json.loads(path.read_text()) for path in (tmp_path / "two" / RUNS).glob(f"*/{RECORD}")]
    assert [record["environment"]["ranks"] for record in records] == [1] * 4


class Second(NoStudyCallback):
    """Lets the first run wait until another worker has begun one, and notes what the others did."""

    def __init__(self, out: Path) -> None:
        self.out, self.ours, self.found = out, list[str](), list[str]()

    def on_run_start(self, run, number, total):
        self.ours.append(run.name)
        deadline = time.monotonic() + PATIENCE
        while len(self.ours) == 1 and not (under_way(self.out) - {run.name}):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return NoCallback()

    def on_found(self, run, number, total, record):
        self.found.append(run.name)


def test_processes_of_this_machine_share_the_runs_and_change_no_figure(tmp_path):
    seen = Second(tmp_path / "two")
    run_study(QUICK, tmp_path / "one")
    run_study(QUICK, tmp_path / "two", seen, processes=2)
    assert len(seen.found) >= 1
    assert len(seen.ours) + len(seen.found) == 4
    assert timeless(tmp_path / "two") == timeless(tmp_path / "one")


@pytest.mark.slow
def test_worker_does_not_outlive_the_process_that_started_it(tmp_path, alone):
    """kill -9 of the leading process; the same command then gives the results of an undisturbed study."""
    out = tmp_path / "killed"
    process = start([*words(out), "--processes", "2"])
    await_two_runs(out, process)
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    (child,) = map(int, found.stdout.split())
    process.kill()
    process.communicate()
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{child}").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    again = start([*words(out), "--processes", "2"])
    _, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    assert timeless(out) == timeless(alone)


def test_number_of_workers_is_checked_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="processes=0 is not possible"):
        run_study(CONFIG, tmp_path / "none", processes=0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="under torchrun"):
        run_study(CONFIG, tmp_path / "none", processes=2)
    assert not (tmp_path / "none").exists()


def by_hand(out: Path) -> "list[subprocess.Popen[str]]":
    """Two ranks that no launcher watches, as a cluster's own tool starts them: one does not end with the other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(words(out), RANK=rank, LOCAL_RANK=rank, **meeting) for rank in ("0", "1")]


def under_way(out: Path) -> set[str]:
    """The runs that have begun and not ended."""
    return {path.parent.name for path in (out / RUNS).glob("*/recipe.yaml") if not (path.parent / RECORD).exists()}


def await_two_runs(out: Path, *processes: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while len(under_way(out)) < 2:
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_run_of_a_worker_that_is_lost_is_done_by_the_other(tmp_path, alone):
    out = tmp_path / "lost"
    first, second = by_hand(out)
    await_two_runs(out, first, second)
    second.kill()
    second.communicate()
    assert len(under_way(out)) >= 1
    _, said = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, said
    assert timeless(out) == timeless(alone)


@pytest.mark.slow
def test_worker_that_loses_the_leading_one_says_so_and_the_study_goes_on(tmp_path, alone):
    out = tmp_path / "headless"
    first, second = by_hand(out)
    await_two_runs(out, first, second)
    first.kill()
    first.communicate()
    _, said = second.communicate(timeout=PATIENCE)
    assert second.returncode == 1
    assert "give the same command again" in said
    assert not (out / "results.json").exists()
    run_study(CONFIG, out)
    assert timeless(out) == timeless(alone)


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [1, 0])
def test_torchrun_starts_a_worker_that_was_killed_again(tmp_path, alone, restarts):
    """The control is torchrun without a restart, which ends; the same command then goes on."""
    out = tmp_path / "killed"
    process = torchrun(out, restarts)
    await_two_runs(out, process)
    child = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(child[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode == 0) == (restarts == 1), said
    if restarts == 0:
        assert not (out / "results.json").exists()
        process = torchrun(out)
        assert process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    assert timeless(out) == timeless(alone)
