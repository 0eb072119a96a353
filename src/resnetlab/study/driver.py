"""The driver of a study on Ray: it gives each run out as a task, and keeps what comes of it in the study's folder."""

import json
import signal
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from resnetlab.core import errors
from resnetlab.core.errors import BusyError, ConfigError, ResNetLabError, StoppedError, first_line, listed
from resnetlab.core.files import folder_exists
from resnetlab.core.lock import folder_lock
from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.records.run import EpochRecord
from resnetlab.study.cluster import LOCAL, connected
from resnetlab.study.keep import keep_of
from resnetlab.study.plan import PlannedRun, Work, read_ended
from resnetlab.study.shipping import MOST_SHIPPED, Files, files_digest, pack_run, pack_source, unpack_run
from resnetlab.study.task import Answer, Mailbox, Order, do_run
from resnetlab.train.callbacks import Callback
from resnetlab.train.folder import BEGUN, Claim, begun_weights, data_places, is_begun, names_hub
from resnetlab.train.folder import MANIFEST as BEGUN_SUMS
from resnetlab.train.recipe import Recipe

PATIENCE = 20.0
"""Seconds that a word between driver and tasks may take."""
LOOK_EVERY = 0.5
"""Seconds between two looks of the driver at its tasks."""
TELL_AFTER = 30.0
"""Seconds after which it is said that Ray has begun no run, or whose runs are waited for."""
GRACE = 60.0
"""Seconds that tasks have to save the step they reached when the study is stopped."""
MOST_LOSSES = 3
"""Losses of a run in a row, with no new checkpoint between, after which the study ends: the run may be their cause."""
MOST_GIVEN = 256
"""Runs that are given out at a time: of each the driver holds the lock."""


@dataclass
class _Given:
    """A run that is given out: to the task ``ref``, with the lock of its folder held."""

    run: PlannedRun
    number: int
    lock: ExitStack
    ref: Any = None
    attempt: int = 0
    losses: int = 0
    callback: Callback | None = None
    """Of the run, once it has begun."""


@dataclass
class _Driver:
    ray: Any
    work: Work
    address: str
    mailbox: Any
    task: Any
    given: dict[str, _Given] = field(default_factory=dict)
    shipped: dict[Path, list[Any]] = field(default_factory=dict)
    """The objects in Ray of what was sent, by its path."""
    digests: dict[Path, str] = field(default_factory=dict)

    def give(self, run: PlannedRun, number: int, lock: ExitStack) -> None:
        """Give the run out, from its last checkpoint where it has one; its ``lock`` is let go with it."""
        self.given[run.name] = given = _Given(run, number, lock)
        self._submit(given)

    def _submit(self, given: _Given) -> None:
        work, run = self.work, given.run
        folder, data = run.folder(work.out), work.data_of(run)
        given.attempt += 1
        source, place = self._source(run.recipe)
        weights = self._weights(folder, run.recipe)
        order = Order(
            run=run.name,
            attempt=given.attempt,
            recipe=run.recipe,
            keep=work.keep,
            source=source,
            named=data.source,
            sha256=data.fingerprint["sha256"],
            check=data.check,
            weights_sha256=self._digest(weights),
        )
        shipped = {"data": self._ship(place), "weights": self._ship(weights)}
        files = pack_run(folder) if is_begun(folder) else {}
        given.ref = self.task.remote(json.dumps(as_plain(order)), files, shipped, [self.mailbox])

    def _source(self, recipe: Recipe) -> tuple[str, Path | None]:
        """The data of the recipe, with their absolute path here, and that path; None for those that need no file."""
        from resnetlab.data.sources import split_source

        work = self.work
        moved = work.place is not None and recipe.data == work.planned[0].recipe.data
        head, where, tail = split_source(str(work.place) if moved else data_places(work.out, recipe.data)[0])
        if not where:
            return head, None
        return f"{head}{Path(where).absolute()}{tail}", Path(where).absolute()

    def _weights(self, folder: Path, recipe: Recipe) -> Path | None:
        if recipe.weights is None or names_hub(folder, recipe):
            return None
        return Path(str(begun_weights(folder, recipe).weights)).absolute()

    def _digest(self, path: Path | None) -> str | None:
        if path is None:
            return None
        if path not in self.digests:
            files = pack_source(path)
            if files is None:
                raise ConfigError(f"{path} has more than {MOST_SHIPPED >> 20} MiB; weights as large are not sent")
            self.digests[path] = files_digest(files)
        return self.digests[path]

    def _ship(self, path: Path | None) -> list[Any]:
        """The object in Ray with the files at ``path``, in a list: a task that has them itself does not wait for it.

        Tasks of one's own Ray see the files, and what is too large is not sent.
        """
        if path is None or self.address == LOCAL:
            return []
        if path not in self.shipped:
            files = pack_source(path)
            if files is None:
                self.work.callback.on_note(
                    f"{path} has more than {MOST_SHIPPED >> 20} MiB and is not sent: every machine must have it there"
                )
            self.shipped[path] = [] if files is None else [self.ray.put(files)]
        return self.shipped[path]

    def hear(self, number: int | None) -> None:
        """Take what the tasks have told: move the bars, and keep their checkpoints; ``number`` is a signal to stop."""
        try:
            news, files = self.ray.get(self.mailbox.take.remote(number), timeout=PATIENCE)
        except self.ray.exceptions.RayError:  # its machine is lost; Ray makes it anew elsewhere
            return
        for name, attempt, text in news:
            given = self.given.get(name)
            if given is not None and given.attempt == attempt:
                self._tell(given, json.loads(text))
        for name, (attempt, packed) in files.items():
            given = self.given.get(name)
            if given is not None and given.attempt == attempt:
                self._write(given, packed)
                given.losses = 0

    def _tell(self, given: _Given, news: dict[str, Any]) -> None:
        if given.callback is None:
            given.callback = self.work.callback.on_run_start(given.run, given.number, len(self.work.planned))
        for note in news["notes"]:
            given.callback.on_note(note)
        for step, steps in news["steps"]:
            given.callback.on_step(step, steps, None)
        for plain, epochs in news["epochs"]:
            given.callback.on_epoch(from_plain(EpochRecord, plain, "an epoch of a task"), epochs)

    def _write(self, given: _Given, files: Files) -> None:
        """Keep the files of a run. What it is of is written here, since paths count from here."""
        folder = given.run.folder(self.work.out)
        if files and not is_begun(folder):
            Claim(given.run.recipe, folder).begin(self.work.data_of(given.run))
        unpack_run({name: files[name] for name in files if name not in (*BEGUN, BEGUN_SUMS)}, folder)

    def end(self, given: _Given) -> None:
        """Record what the task of the run gave. Raises what that raises, and ``RayError`` if its worker is lost."""
        try:
            answer: Answer = self.ray.get(given.ref)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else ResNetLabError(str(error)) from None
        if answer.kind:
            kind = getattr(errors, answer.kind, ResNetLabError)
            # Some kinds take more than a message.
            kind = kind if kind.__init__ is Exception.__init__ else ResNetLabError
            raise kind(f"{given.run.name}: {answer.message}")
        self._write(given, answer.files)
        if not answer.stopped:
            record = read_ended(given.run, self.work.out)
            keep_of(record, given.run.recipe, given.run.folder(self.work.out), self.work.keep)
            if given.callback is None:
                self._tell(given, {"notes": [], "steps": [], "epochs": []})
            self.work.callback.on_run_end(given.run, record)
        self.drop(given)

    def again(self, given: _Given, error: Exception) -> None:
        """Give the run of a worker that was lost out again."""
        given.losses += 1
        reason = f"the worker of {given.run.name} was lost ({first_line(error)})"
        if given.losses >= MOST_LOSSES:
            raise ResNetLabError(
                f"{reason}, {given.losses} times in a row without a new checkpoint; the run may need more memory than "
                "a worker has"
            )
        self.work.callback.on_note(f"{reason}; begun again {_from_where(given.run.folder(self.work.out))}")
        self._submit(given)

    def drop(self, given: _Given) -> None:
        """Hold the run no longer."""
        del self.given[given.run.name]
        given.lock.close()

    def stop(self, number: int) -> None:
        """End the tasks, those under way with the step that they reached, and keep that."""
        deadline = monotonic() + GRACE
        for given in list(self.given.values()):
            if given.callback is None:
                self.ray.cancel(given.ref)
                self.drop(given)
        while self.given and monotonic() < deadline:
            self.hear(number)
            ready, _ = self.ray.wait([given.ref for given in self.given.values()], timeout=LOOK_EVERY)
            for given in [given for given in self.given.values() if given.ref in ready]:
                try:
                    self.end(given)
                except self.ray.exceptions.RayError:
                    self.drop(given)

    def close(self) -> None:
        """End what is left, as it is."""
        for given in list(self.given.values()):
            with suppress(Exception):
                self.ray.cancel(given.ref, force=True)
            self.drop(given)


def _from_where(folder: Path) -> str:
    """Where the run in ``folder`` resumes."""
    from resnetlab.train.checkpoint import read_checkpoint
    from resnetlab.train.checkpoint_manager import LAST

    if not folder_exists(folder / LAST):
        return "from its start"
    checkpoint = read_checkpoint(folder / LAST)
    return f"after epoch {len(checkpoint.history)}, step {checkpoint.step}"


def work_off_on_ray(work: Work, address: str) -> None:
    """Do the runs that no other process does as tasks of Ray, and wait until all are recorded.

    Each task has a CPU, and where the recipe wants cuda, or takes what there is of a cluster with GPUs, a GPU. A run
    whose worker is lost is given out again from its last checkpoint. Raises what a run raises, ``StoppedError`` where
    ``work.stop`` asked for it, and ``AddressError``.
    """
    with connected(address) as ray:
        mailbox = ray.remote(num_cpus=0, max_restarts=-1)(Mailbox).remote()
        gpus = _gpus(work.planned[0].recipe.training.device, ray.cluster_resources())
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_task)
        driver = _Driver(ray, work, address, mailbox, task)
        try:
            with work.stop.deferred() if work.stop else nullcontext():
                _dispatch(driver)
        finally:
            driver.close()


def _gpus(device: str, resources: dict[str, float]) -> int:
    return int(device == "cuda" or (device == "auto" and resources.get("GPU", 0) >= 1))


def _task(order: str, files: Files, shipped: dict[str, list[Any]], mailbox: list[Any]) -> Answer:
    """What a worker of Ray does: ``do_run``, with its words brought to the mailbox.

    It waits by ``future``: while a worker waits by ``ray.get``, Ray gives its CPU to another task.
    """

    def fetch(what: str) -> Files | None:
        found: Files | None = shipped[what][0].future().result() if shipped[what] else None
        return found

    def say(run: str, attempt: int, news: str, packed: Files | None) -> int | None:
        asked: int | None = mailbox[0].beat.remote(run, attempt, news, packed).future().result(PATIENCE)
        return asked

    return do_run(order, files, fetch, say)


def _dispatch(driver: _Driver) -> None:
    work, ray = driver.work, driver.ray
    left = [(number, run) for number, run in enumerate(work.planned, start=1) if not run.has_ended(work.out)]
    told, since = set[str](), monotonic()
    while left or driver.given:
        left, holders = _give(driver, left)
        ready = []
        if driver.given:
            ready, _ = ray.wait([given.ref for given in driver.given.values()], timeout=LOOK_EVERY)
        else:
            sleep(LOOK_EVERY)
        number = work.stop.signal if work.stop else None
        driver.hear(number)
        if number is not None:
            driver.stop(number)
            raise StoppedError(f"stopped by {signal.Signals(number).name}; what the runs reached is saved", number)
        for given in [given for given in driver.given.values() if given.ref in ready]:
            try:
                driver.end(given)
            except ray.exceptions.RayError as error:
                driver.again(given, error)
            since = monotonic()
        if any(given.callback for given in driver.given.values()):
            since = monotonic()
        if monotonic() - since > TELL_AFTER:
            reason = _waiting(ray, len(driver.given), holders)
            if reason not in told:
                work.callback.on_note(reason)
                told.add(reason)


def _give(driver: _Driver, left: list[tuple[int, PlannedRun]]) -> tuple[list[tuple[int, PlannedRun]], list[str]]:
    """Give out the runs that nobody does; those that are still left, and who does them where others do."""
    work = driver.work
    others, holders = [], []
    for number, run in left:
        if len(driver.given) >= MOST_GIVEN:
            others.append((number, run))
            continue
        with ExitStack() as lock:
            try:
                lock.enter_context(folder_lock(run.folder(work.out)))
            except BusyError as error:
                others.append((number, run))
                holders.append(f"{run.name} (process {error.holder})")
                continue
            if run.has_ended(work.out):
                work.callback.on_found(run, number, len(work.planned), read_ended(run, work.out))
            else:
                driver.give(run, number, lock.pop_all())
    return others, holders


def _waiting(ray: Any, given: int, holders: list[str]) -> str:
    """Why nothing goes on."""
    if not given:
        return f"waiting for runs that other processes do: {listed(holders)}"
    total = ray.cluster_resources()
    return (
        f"Ray has begun none of the {given} runs that it was given: its machines have {total.get('CPU', 0):g} CPUs and "
        f"{total.get('GPU', 0):g} GPUs, all taken or too few"
    )
