"""Several workers do a study as one does, and one of them may be lost."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from resnetlab.core.errors import BusyError, ConfigError
from resnetlab.core.lock import folder_lock
from resnetlab.data.config import AugmentConfig
from resnetlab.study import RUNS, STUDY, NoStudyCallback, Study, plan_runs, run_study, runner, study_command
from resnetlab.study.config import study_settings
from resnetlab.study.workers import count_workers
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.config import TrainConfig
from resnetlab.train.folder import RECORD
from resnetlab.train.recipe import Recipe
from tests.conftest import ROOT
from tests.study.conftest import timeless

CONFIG = Study(
    recipe=Recipe(
        model="cifar_resnet8",
        training=TrainConfig(epochs=2, batch_size=128, device="cpu", augment=AugmentConfig(crop_padding=0)),
    ),
    axes={"shortcut": ("A", "none")},
    seeds=2,
)
QUICK = replace(
    CONFIG, recipe=replace(CONFIG.recipe, model="mlp_resnet8", training=replace(CONFIG.recipe.training, epochs=1))
)
PATIENCE = 300.0


def words(out: Path) -> list[str]:
    given = shlex.split(study_command(CONFIG))[1:]
    given[given.index("STUDY")] = str(out)
    return ["-m", "resnetlab", *given, "--workers", "1"]


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
        self.out, self.ours, self.found, self.notes = out, list[str](), list[str](), list[str]()

    def on_run_start(self, run, number, total):
        self.ours.append(run.name)
        deadline = time.monotonic() + PATIENCE
        while len(self.ours) == 1 and not (under_way(self.out) - {run.name}):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return NoCallback()

    def on_found(self, run, number, total, record):
        self.found.append(run.name)

    def on_note(self, text):
        self.notes.append(text)


def test_workers_of_this_machine_share_the_runs_and_change_no_figure(tmp_path):
    seen = Second(tmp_path / "two")
    run_study(QUICK, tmp_path / "one")
    run_study(QUICK, tmp_path / "two", seen, workers=2)
    assert len(seen.found) >= 1
    assert len(seen.ours) + len(seen.found) == 4
    assert seen.notes == []
    assert timeless(tmp_path / "two") == timeless(tmp_path / "one")


def test_auto_is_one_worker_a_core_and_one_a_rank(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))
    assert (count_workers("auto", "cpu"), count_workers(3, "cpu")) == (7, 3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert count_workers("auto", "cpu") == 1


@pytest.mark.slow
def test_worker_does_not_outlive_the_process_that_started_it(tmp_path, alone):
    """kill -9 of the leading process; the same command then gives the results of an undisturbed study."""
    out = tmp_path / "killed"
    process = start([*words(out)[:-1], "2"])
    await_two_runs(out, process)
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    (child,) = map(int, found.stdout.split())
    process.kill()
    process.communicate()
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{child}").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    again = start([*words(out)[:-1], "2"])
    _, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    assert timeless(out) == timeless(alone)


@pytest.mark.parametrize("workers", [0, 2000])
def test_number_of_workers_is_checked_before_anything_is_written(tmp_path, workers):
    with pytest.raises(ConfigError, match=f"workers={workers} is not possible"):
        run_study(CONFIG, tmp_path / "none", workers=workers)
    assert not (tmp_path / "none").exists()


def under_way(out: Path) -> set[str]:
    """The runs that have begun and not ended."""
    return {path.parent.name for path in (out / RUNS).glob("*/recipe.yaml") if not (path.parent / RECORD).exists()}


def await_two_runs(out: Path, *processes: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while len(under_way(out)) < 2:
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("lost", [0, 1])
def test_same_command_joins_and_does_the_run_of_a_process_that_is_lost(tmp_path, alone, lost):
    """Whichever it is: none of them leads."""
    out = tmp_path / "lost"
    both = [start(words(out)), start(words(out))]
    await_two_runs(out, *both)
    both[lost].kill()
    both.pop(lost).communicate()
    assert len(under_way(out)) >= 1
    shown, said = both[0].communicate(timeout=PATIENCE)
    assert both[0].returncode == 0, said
    assert "After the last epoch" in shown
    assert timeless(out) == timeless(alone)


def test_study_that_others_work_on_is_shared_by_the_same_settings_alone(tmp_path):
    seen = Second(tmp_path)
    seen.ours.append("no run is waited for")
    out = tmp_path / "study"
    run_study(replace(QUICK, seeds=1), out)
    with folder_lock(out, share=True) as other:
        other.share()
        with pytest.raises(ConfigError, match="other settings"):
            run_study(replace(QUICK, axes={"shortcut": ("B",)}), out)
        assert len(run_study(QUICK, out, seen).runs) == 4
    assert seen.notes == [f"other processes work on the study in {out}; this one shares its runs"]


def test_folder_in_which_something_else_is_written_is_not_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "PATIENCE", 0.0)
    with folder_lock(tmp_path), pytest.raises(BusyError, match=f"another process .{os.getpid()} on "):
        run_study(QUICK, tmp_path)


def test_study_that_fails_before_its_first_run_leaves_the_folder_to_those_that_share_it(tmp_path):
    class Fails(NoStudyCallback):
        def on_plan(self, planned, ended):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(QUICK, tmp_path / "study", Fails())
    assert not (tmp_path / "study").exists()

    class Shared(Fails):
        def on_plan(self, planned, ended):
            with folder_lock(tmp_path / "study", share=True) as other:
                assert other.shared
                handle.append(os.dup(other._handle))
            raise KeyboardInterrupt

    handle = []
    with pytest.raises(KeyboardInterrupt):
        run_study(QUICK, tmp_path / "study", Shared())
    os.close(*handle)
    assert (tmp_path / "study" / STUDY).is_file()


def test_run_that_is_held_by_hand_is_told_and_done_when_it_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "TELL_AFTER", 0.0)
    first = plan_runs(QUICK)[0]
    held = folder_lock(first.folder(tmp_path))

    class Waits(Second):
        def on_note(self, text):
            super().on_note(text)
            held.__exit__(None, None, None)

    seen = Waits(tmp_path)
    seen.ours.append("no run is waited for")
    (tmp_path / STUDY).write_text(json.dumps(study_settings(QUICK)))
    with held:
        run_study(QUICK, tmp_path, seen)
    (note,) = seen.notes
    assert f"waiting for runs that other processes do: {first.name} (process {os.getpid()} on " in note
    assert seen.ours[1:] == [*(run.name for run in plan_runs(QUICK)[1:]), first.name]


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
