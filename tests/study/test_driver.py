"""The driver of a study on Ray, with threads in the place of Ray: what it sends and keeps, and what it gives again."""

import json
import signal
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Lock

import numpy as np
import pytest

from resnetlab.core.errors import ConfigError, ResNetLabError, StoppedError, StorageError
from resnetlab.core.lock import folder_lock
from resnetlab.data.sources import read_digits
from resnetlab.study import NoStudyCallback, driver, plan_runs, run_study, runner, shipping, task
from resnetlab.study.plan import Work
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.signals import StopRequest
from tests.study.conftest import timeless
from tests.study.test_workers import QUICK


class LostError(Exception):
    """As Ray says that a worker is lost."""


class Reference(Future):
    def future(self):
        return self


def known(value):
    reference = Reference()
    reference.set_result(value)
    return reference


class Method:
    def __init__(self, call):
        self.remote = call


class Actor:
    """Its methods are called one at a time."""

    def __init__(self, kind):
        self._object, self._lock = kind(), Lock()

    def __getattr__(self, name):
        def call(*given):
            with self._lock:
                return known(getattr(self._object, name)(*given))

        return Method(call)


class Threads:
    """What the driver asks of Ray, with one CPU.

    The first tasks are lost, one for each of ``loses``: once they have told a checkpoint, or for None before they
    begin. ``blind`` ones find nothing at the driver's paths. None ``starts`` otherwise.
    """

    class exceptions:  # noqa: N801
        RayError = LostError
        RayTaskError = type("TaskError", (LostError,), {})

    def __init__(self, loses=(), blind=False, starts=True):
        self.pool, self.loses, self.blind, self.starts = ThreadPoolExecutor(1), list(loses), blind, starts
        self.asked, self.put_in, self.cancelled = [], [], []

    def remote(self, **options):
        self.asked.append(options)

        def of(thing):
            return Method(lambda: Actor(thing)) if isinstance(thing, type) else Method(self._task_of(thing))

        return of

    def _task_of(self, thing):
        def submit(order, files, shipped, mailbox):
            reference = Reference()
            if self.starts:
                self.pool.submit(self._do, reference, thing, order, files, shipped, mailbox)
            return reference

        return submit

    def _do(self, reference, thing, order, files, shipped, mailbox):
        if not reference.set_running_or_notify_cancel():
            return
        if self.blind:
            order = json.dumps(json.loads(order) | {"source": "npz:/nowhere/made.npz"})
        loses = self.loses.pop(0) if self.loses else "nothing"
        try:
            if loses is None:
                raise LostError("it ran out of memory\nand more")
            if loses == "told":
                thing(order, files, shipped, [Ending(mailbox[0])])
                raise LostError("its machine is gone")
            reference.set_result(thing(order, files, shipped, mailbox))
        except Exception as error:
            reference.set_exception(error)

    def cluster_resources(self):
        return {"CPU": 1.0}

    def put(self, value):
        self.put_in.append(value)
        return known(value)

    def get(self, reference, timeout=None):
        return reference.result(timeout)

    def wait(self, references, timeout):
        done, _ = wait(references, timeout, FIRST_COMPLETED)
        return [reference for reference in references if reference in done], []

    def cancel(self, reference, force=False):
        self.cancelled.append(force)
        reference.cancel()


class Ending:
    """A mailbox that asks the task to stop once it has told a checkpoint."""

    def __init__(self, mailbox):
        def beat(run, attempt, news, files):
            mailbox.beat.remote(run, attempt, news, files)
            self.told |= files is not None
            return known(15 if self.told else None)

        self.told, self.beat = False, Method(beat)


class Notes(NoStudyCallback):
    def __init__(self, on_step=lambda _: None):
        self.notes, self.begun, self.ended, self.first, self.on_step = [], [], [], {}, on_step

    def on_note(self, text):
        self.notes.append(text)

    def on_run_start(self, run, number, total):
        self.begun.append((run.name, number, total))
        outer = self

        class Within(NoCallback):
            def on_step(self, step, steps, stats):
                outer.first.setdefault((run.name, len(outer.notes)), step)
                outer.on_step(step)

        return Within()

    def on_run_end(self, run, record):
        self.ended.append((run.name, len(record.history)))


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr(task, "_HELD", {})
    monkeypatch.setattr(task, "BEAT", 0.005)
    monkeypatch.setattr(driver, "LOOK_EVERY", 0.005)
    monkeypatch.setattr(runner, "check_ray", lambda _: None)


@pytest.fixture
def do(monkeypatch):
    """Do a study on such a Ray."""

    def do(study, out, ray, callback=None, stop=None, address="there:1", **more):
        @contextmanager
        def connected(_):
            with ray.pool:
                yield ray

        monkeypatch.setattr(driver, "connected", connected)
        return run_study(study, out, callback, stop, ray=address, **more)

    return do


@pytest.fixture(scope="module")
def driver_only(tmp_path_factory):
    return tmp_path_factory.mktemp("driver")


@pytest.fixture(scope="module")
def study(driver_only):
    """Two runs on a part of the digits in a file; every epoch is saved."""
    data = read_digits(0)
    parts = {"train": data.train, "test": data.test}
    arrays = {f"x_{name}": part.images.squeeze(1).numpy()[:256] for name, part in parts.items()}
    arrays |= {f"y_{name}": part.labels.numpy()[:256] for name, part in parts.items()}
    np.savez(driver_only / "made.npz", **arrays)
    training = replace(QUICK.recipe.training, epochs=3, batch_size=16, save_every_seconds=0)
    recipe = replace(QUICK.recipe, data=f"npz:{driver_only / 'made.npz'}", training=training)
    return replace(QUICK, recipe=recipe, seeds=1)


@pytest.fixture(scope="module")
def alone(study, driver_only):
    run_study(study, driver_only / "alone")
    return driver_only / "alone"


def test_runs_are_recorded_as_without_ray_on_data_that_are_sent_once(tmp_path, study, alone, do):
    ray, seen = Threads(blind=True), Notes()
    do(study, tmp_path / "study", ray, seen)
    assert timeless(tmp_path / "study") == timeless(alone)
    names = [run.name for run in plan_runs(study)]
    assert seen.begun == [(name, number, 2) for number, name in enumerate(names, start=1)]
    assert seen.ended == [(name, 3) for name in names]
    assert [list(files) for files in ray.put_in] == [["made.npz"]]
    assert {"num_cpus": 1, "num_gpus": 0, "max_retries": 0} in ray.asked
    for run in plan_runs(study):
        for name in ("recipe.yaml", "data.json", "classes.json"):
            ours, theirs = (run.folder(folder) / name for folder in (tmp_path / "study", alone))
            assert ours.read_bytes() == theirs.read_bytes()
        # Weights are what is kept.
        assert not (run.folder(tmp_path / "study") / "last" / "training.safetensors").exists()


def test_data_that_are_too_large_are_told_and_not_sent_and_a_ray_of_ones_own_gets_none(
    tmp_path, monkeypatch, study, do
):
    own, large, seen = Threads(), Threads(blind=True), Notes()
    do(study, tmp_path / "own", own, address="local")
    assert own.put_in == []
    task._HELD.clear()
    for module in (driver, shipping):
        monkeypatch.setattr(module, "MOST_SHIPPED", 10)
    with pytest.raises(ResNetLabError, match=r"does not have the data of .*: nothing lies there"):
        do(study, tmp_path / "large", large, seen)
    assert large.put_in == []
    (note,) = seen.notes
    assert "made.npz has more than 0 MiB and is not sent: every machine must have it there" in note


def test_run_that_is_lost_resumes_from_the_checkpoint_that_had_arrived(tmp_path, study, alone, do):
    ray, seen = Threads(loses=["told"]), Notes()
    do(study, tmp_path / "study", ray, seen)
    assert timeless(tmp_path / "study") == timeless(alone)
    (note,) = seen.notes
    name = plan_runs(study)[0].name
    assert note.startswith(f"the worker of {name} was lost (its machine is gone); begun again after epoch ")
    assert seen.first[name, 0] < seen.first[name, 1]
    # The bar of the run goes on.
    assert [begun for begun, *_ in seen.begun] == [run.name for run in plan_runs(study)]


def test_run_that_is_lost_again_and_again_ends_the_study(tmp_path, study, do):
    seen, name = Notes(), plan_runs(study)[0].name
    one = replace(study, axes={"shortcut": ("A",)})
    with pytest.raises(ResNetLabError, match="3 times in a row without a new checkpoint; the run may need more memory"):
        do(one, tmp_path / "study", Threads(loses=[None] * 3), seen)
    assert seen.notes == [f"the worker of {name} was lost (it ran out of memory); begun again from its start"] * 2
    with folder_lock(plan_runs(study)[0].folder(tmp_path / "study")):
        pass


def test_a_checkpoint_ends_a_row_of_losses(tmp_path, study, do):
    seen = Notes()
    one = replace(study, axes={"shortcut": ("A",)})
    do(one, tmp_path / "study", Threads(loses=[None, None, "told", None]), seen)
    assert len(seen.notes) == 4
    assert [note.rpartition("begun again ")[2].split()[0] for note in seen.notes] == ["from"] * 2 + ["after"] * 2


def test_stop_keeps_the_step_of_the_run_under_way_and_begins_no_other(tmp_path, study, alone, do):
    out, stop = tmp_path / "study", StopRequest()
    ray, seen = Threads(), Notes(lambda _: stop.signal is None and stop.note(signal.SIGINT, None))
    with pytest.raises(StoppedError, match="stopped by SIGINT; what the runs reached is saved") as raised:
        do(study, out, ray, seen, stop)
    assert raised.value.exit_code == 130
    first, second = plan_runs(study)
    assert not first.has_ended(out)
    checkpoint = read_checkpoint(first.folder(out) / "last")
    assert (len(checkpoint.history), checkpoint.step) > (0, 0)
    assert not second.folder(out).exists()
    assert ray.cancelled == [False]
    run_study(study, out)
    assert timeless(out) == timeless(alone)


def test_stop_waits_no_longer_than_its_grace_for_a_task_that_does_not_end(tmp_path, monkeypatch, study, do):
    monkeypatch.setattr(driver, "GRACE", 0.05)
    monkeypatch.setattr(
        driver._Driver,
        "hear",
        lambda self, _: [setattr(g, "callback", NoCallback()) for g in self.given.values()] and stop.note(2, None),
    )
    stop, ray = StopRequest(), Threads(starts=False)
    monkeypatch.setattr("os._exit", lambda _: None)
    with pytest.raises(StoppedError):
        do(study, tmp_path / "study", ray, None, stop)
    assert ray.cancelled == [True, True]


def test_run_that_is_lost_while_the_study_stops_is_not_begun_again(tmp_path, monkeypatch, study, do):
    stop = StopRequest()
    ray, seen = Threads(loses=["told"]), Notes(lambda _: stop.signal is None and stop.note(signal.SIGTERM, None))
    with pytest.raises(StoppedError):
        do(study, tmp_path / "study", ray, seen, stop)
    assert seen.notes == []
    assert not (tmp_path / "study" / "results.json").exists()


def test_word_of_a_task_that_was_taken_for_lost_is_not_heard(tmp_path, study):
    run, *_ = planned = plan_runs(study)
    work = Work(planned=planned, out=tmp_path, sets={}, place=None, callback=Notes(), stop=None, keep="none")
    mailbox = Actor(task.Mailbox)
    spread = driver._Driver(Threads(), work, "there:1", mailbox, None)
    spread.given[run.name] = given = driver._Given(run, 1, ExitStack(), attempt=2)
    mailbox.beat.remote(run.name, 1, task.News().take(), {"metrics.jsonl": b""})
    spread.hear(None)
    assert given.callback is None
    assert list(tmp_path.glob("runs")) == []
    mailbox.beat.remote(run.name, 2, task.News().take(), None)
    spread.hear(None)
    assert given.callback is not None


def test_what_is_wrong_with_a_run_is_told_by_its_kind(tmp_path, monkeypatch, study, do):
    def refuse(*_, **__):
        raise StorageError("the disk is full")

    monkeypatch.setattr(task, "pack_run", refuse)
    with pytest.raises(StorageError, match=f"{plan_runs(study)[0].name}: the disk is full"):
        do(study, tmp_path / "study", Threads())


def test_weights_that_are_too_large_are_refused(tmp_path, monkeypatch, study, alone, do):
    monkeypatch.setattr(shipping, "MOST_SHIPPED", 10)
    weights = plan_runs(study)[0].folder(alone) / "last"
    tuned = replace(study, axes={"shortcut": ("A",)}, recipe=replace(study.recipe, weights=str(weights)))
    with pytest.raises(ConfigError, match="weights as large are not sent"):
        do(tuned, tmp_path / "study", Threads())
