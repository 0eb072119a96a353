"""Studies on real clusters of Ray: one whose machines do not see the driver's data and folders, and one of its own."""

import faulthandler
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resnetlab.core.errors import AddressError
from resnetlab.core.files import read_folder
from resnetlab.data.sources import read_digits
from resnetlab.study import NoStudyCallback, plan_runs, run_study, study_command
from resnetlab.study.cluster import check_ray
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.checkpoint import read_checkpoint
from tests.conftest import ROOT
from tests.study.conftest import timeless
from tests.study.test_workers import CONFIG, PATIENCE, QUICK

# Else Ray writes a token into the user's home.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
pytest.importorskip("ray", reason="the extra ray is not installed; make test-ray sets it up")
# The warnings are those of Ray.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]

LIMIT = 240
"""Seconds that a test may take; one that does not heed that ends all of them half a minute later."""
ENDS_WITHIN = 30.0
"""Seconds within which the driver, and then all of its Ray, ends after Ctrl-C."""
MARK = "RESNETLAB_TEST_OF"
"""In the environment of all processes that a test starts."""
HIDES = (
    shutil.which("unshare")
    and not subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    ).returncode
)


def processes(mark: str) -> dict[int, str]:
    """Those with the mark in their environment that are not dead yet, by number, with their name."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True, scope="module")
def _bounded_clusters():
    """However the tests end, nothing that they started is left."""
    yield
    for mark in ("cluster", "killpg", "kill"):
        for pid in processes(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def _bounded():
    """No test waits for ever, whatever Ray does."""

    def give_up(*_):
        pytest.fail(f"it takes more than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT)
    faulthandler.dump_traceback_later(LIMIT + 30, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def driver_only(tmp_path_factory) -> Path:
    """A folder that the machines of the cluster do not see."""
    return tmp_path_factory.mktemp("driver")


@pytest.fixture(scope="module")
def cluster(driver_only):
    """The address of a cluster of two CPUs whose processes see nothing in ``driver_only``."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    start = f"exec {sys.executable} -m ray.scripts.scripts start --head --block --disable-usage-stats --num-cpus 2"
    hide = f"mount -t tmpfs none {driver_only} && " if HIDES else ""
    # It ends in time where nobody is left to end it.
    command = ["timeout", "900", "sh", "-c", f"{hide}{start} --include-dashboard false --port {port}"]
    settings = os.environ | {MARK: "cluster", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])}
    process = subprocess.Popen(
        ["unshare", "-m", *command] if HIDES else command,
        env=settings,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await_ray(f"127.0.0.1:{port}", process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


def await_ray(address: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            check_ray(address)
            return
        except AddressError:
            assert process.poll() is None
            assert time.monotonic() < deadline


@pytest.fixture(scope="module")
def study(driver_only):
    """Two networks and two seeds on the digits in a file; every epoch is saved."""
    data = read_digits(0)
    parts = {"train": data.train, "test": data.test}
    arrays = {f"x_{name}": part.images.squeeze(1).numpy() for name, part in parts.items()}
    np.savez(driver_only / "made.npz", **arrays, **{f"y_{name}": part.labels.numpy() for name, part in parts.items()})
    training = replace(CONFIG.recipe.training, save_every_seconds=0)
    recipe = replace(CONFIG.recipe, data=f"npz:{driver_only / 'made.npz'}", training=training)
    return replace(CONFIG, recipe=recipe)


@pytest.fixture(scope="module")
def alone(study, driver_only) -> Path:
    run_study(study, driver_only / "alone")
    return driver_only / "alone"


class Kills(NoStudyCallback):
    """Kills the worker of a run, once, when the driver has a checkpoint of that run; and notes what it is told."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.steps: dict[str, list[int]] = {}
        self.lost: list[str] = []
        self.resumes: dict[str, int] = {}
        self.sees: list[str] | None = None
        self.total = 0

    def on_run_start(self, run, number, total):
        outer, steps = self, self.steps.setdefault(run.name, [])

        class Within(NoCallback):
            def on_step(self, step, steps_in_all, stats):
                outer.total = steps_in_all
                steps.append(step)
                if outer.sees is None and (run.folder(outer.out) / "last" / "manifest.json").exists():
                    outer.kill()

        return Within()

    def kill(self) -> None:
        workers = [pid for pid, name in processes("cluster").items() if name.startswith("ray::_task")]
        assert 1 <= len(workers) <= 2
        self.sees = [path.name for path in Path(f"/proc/{workers[0]}/root{self.out.parent}").iterdir()]
        os.kill(workers[0], signal.SIGKILL)

    def on_note(self, text):
        self.lost.append(text)
        for name, steps in self.steps.items():
            if name in text:
                per_epoch = self.total // CONFIG.recipe.training.epochs
                checkpoint = read_checkpoint(self.out / "runs" / name / "last")
                self.resumes[name] = len(checkpoint.history) * per_epoch + checkpoint.step + 1
                steps.clear()


def test_a_run_whose_worker_is_killed_resumes_elsewhere_to_the_record_of_an_undisturbed_study(
    study, cluster, driver_only, alone
):
    """The machines have neither the data nor the folder of the study, where the system can hide them."""
    out = driver_only / "spread"
    seen = Kills(out)
    run_study(study, out, seen, ray=cluster)
    assert timeless(out) == timeless(alone)
    if HIDES:
        assert seen.sees == []
    (note,) = seen.lost
    ((name, first),) = seen.resumes.items()
    assert note.startswith(f"the worker of {name} was lost (")
    assert "begun again after epoch" in note
    # Not from its start: the first step that is told is the one behind the checkpoint.
    assert 1 < first == seen.steps[name][0]
    for run in plan_runs(study):
        files, expected = (read_folder(run.folder(folder) / "last")[1] for folder in (out, alone))
        assert files["model.safetensors"] == expected["model.safetensors"]
        # Where the run began is where the driver is.
        for name in ("recipe.yaml", "data.json", "classes.json", "run.json"):
            assert (run.folder(out) / name).read_bytes() == (run.folder(alone) / name).read_bytes()
        assert {path.name for path in run.folder(out).iterdir()} == {path.name for path in run.folder(alone).iterdir()}


def test_what_is_wrong_with_a_run_is_told_as_without_ray(study, cluster, driver_only, resnetlab):
    weights = driver_only / "weights.safetensors"
    weights.write_bytes(b"no weights")
    base = ["study", "--axis", "shortcut=A,none", "--data", study.recipe.data, "--weights", str(weights)]
    done = resnetlab(*base, "--out", driver_only / "wrong", "--ray", cluster)
    usual = resnetlab(*base, "--out", driver_only / "usual", "--workers", "1")
    assert done.returncode == usual.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    assert "weights.safetensors" in done.stderr


def test_weights_are_sent(study, cluster, driver_only, alone):
    """From a run's folder, which no machine of the cluster sees."""
    weights = plan_runs(study)[0].folder(alone)
    tuned = replace(
        study, seeds=1, axes={"shortcut": ("A",)}, recipe=replace(study.recipe, weights=str(weights / "last"))
    )
    run_study(tuned, driver_only / "tuned", ray=cluster)
    run_study(tuned, driver_only / "tuned alone")
    assert timeless(driver_only / "tuned") == timeless(driver_only / "tuned alone")


@pytest.mark.parametrize("to", [os.killpg, os.kill], ids=["all of its group", "the driver alone"])
def test_ctrl_c_ends_a_ray_of_ones_own_and_leaves_a_study_to_resume(tmp_path, to):
    """A terminal sends it to all processes of the group."""
    out, mark = tmp_path / "study", to.__name__
    training = replace(QUICK.recipe.training, epochs=100, save_every_seconds=0)
    long = replace(QUICK, recipe=replace(QUICK.recipe, training=training), seeds=1)
    given = ["-m", "resnetlab", *shlex.split(study_command(long))[1:]]
    given[given.index("STUDY")] = str(out)
    first, *_ = sorted(os.sched_getaffinity(0))
    process = subprocess.Popen(
        [sys.executable, *given, "--ray", "local"],
        env=os.environ | {MARK: mark, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # One core, so that one run of the two waits.
        preexec_fn=lambda: os.sched_setaffinity(0, {first}),
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not (checkpoints := list(out.glob("runs/*/last/manifest.json"))):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        to(process.pid, signal.SIGINT)
        shown, said = process.communicate(timeout=ENDS_WITHIN)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert said.splitlines()[-1].endswith("to resume, give the same command again")
    assert shown == ""
    # What Ray ends last looks for the end of its parent.
    deadline = time.monotonic() + ENDS_WITHIN
    while left := processes(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    (run,) = {path.parent.parent for path in checkpoints}
    before = read_checkpoint(run / "last")
    assert (len(before.history), before.step) > (0, 0)
    assert not (run / "record.json").exists()
    assert [path.name for path in (out / "runs").iterdir()] == [run.name]
    run_study(long, out)
    run_study(long, tmp_path / "alone")
    assert timeless(out) == timeless(tmp_path / "alone")


@pytest.mark.parametrize("listens", [False, True], ids=["nobody listens", "who listens is silent"])
def test_address_that_does_not_answer_is_told_within_bounds_and_before_anything_is_written(
    tmp_path, monkeypatch, listens
):
    monkeypatch.setattr("resnetlab.study.cluster.PATIENCE", 5.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        if not listens:
            server.close()
        address = f"127.0.0.1:{server.getsockname()[1]}" if listens else "127.0.0.1:1"
        began = time.monotonic()
        with pytest.raises(AddressError, match=f"no cluster of Ray answers at {address}; begin one with: ray start"):
            run_study(CONFIG, tmp_path / "study", ray=address)
        assert time.monotonic() - began < 30
    assert AddressError.exit_code == 5
    assert not (tmp_path / "study").exists()
