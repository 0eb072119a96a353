"""One run of a study as a task of Ray: what it is given, what it tells while it trains, and what it gives back.

All of it is text and bytes. The machine of the task needs resnetlab and its Ray, and nothing of the driver's disk.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any

from resnetlab import __version__
from resnetlab.core.errors import BusyError, CheckpointError, ConfigError, DataError, ResNetLabError, StoppedError
from resnetlab.core.lock import folder_lock
from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.data.config import Check
from resnetlab.records.run import EpochRecord
from resnetlab.study.keep import Keep, keep_of
from resnetlab.study.plan import data_key
from resnetlab.study.shipping import Files, files_digest, pack_run, pack_source, unpack_run, unpack_source
from resnetlab.study.workers import one_thread
from resnetlab.train.callbacks import NoCallback, StepStats
from resnetlab.train.recipe import Recipe, recipe_data

if TYPE_CHECKING:
    from resnetlab.data.dataset import ImageData
    from resnetlab.train.signals import StopRequest

BEAT = 1.0
"""Seconds between two words of a task to the driver."""
SCRATCH = "resnetlab-ray-"
"""How the names of the folders begin in which tasks work."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a task is to do; ``attempt`` counts how often the run was given out, from 1."""

    run: str
    attempt: int
    recipe: Recipe
    keep: Keep
    source: str
    """The data, with the absolute path that they have where the driver is."""
    named: str
    """What a record calls them."""
    sha256: str
    check: Check
    """How their images were looked at."""
    weights_sha256: str | None
    """Of the file or folder of weights that the run starts from (``files_digest``); None without."""
    resnetlab: str = __version__


@dataclass(frozen=True)
class Answer:
    """What comes of a task: the files of the run, ended or ``stopped``, or an error by its kind and message."""

    files: Files
    stopped: bool = False
    kind: str = ""
    message: str = ""


class Mailbox:
    """An actor of Ray between the tasks and the driver. Of each run it holds what the driver has not taken yet."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.news: list[tuple[str, int, str]] = []
        self.files: dict[str, tuple[int, Files]] = {}

    def beat(self, run: str, attempt: int, news: str, files: Files | None) -> int | None:
        """A word of a task: its news, and its checkpoint where that is new; the signal on which it is to stop."""
        self.news.append((run, attempt, news))
        # What was taken for lost may still be there, and speak.
        if files is not None and attempt >= self.files.get(run, (0, None))[0]:
            self.files[run] = (attempt, files)
        return self.signal

    def take(self, signal: int | None) -> tuple[list[tuple[str, int, str]], dict[str, tuple[int, Files]]]:
        """All that was said since the driver took it last, and the newest checkpoints; ``signal`` is for the tasks."""
        self.signal = signal
        taken = self.news, self.files
        self.news, self.files = [], {}
        return taken


class News(NoCallback):
    """Gathers what a run tells between two beats."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._steps: list[tuple[int, int]] = []
        self._epochs: list[tuple[Any, int]] = []
        self._notes: list[str] = []

    def on_note(self, text: str) -> None:
        with self._lock:
            self._notes.append(text)

    def on_step(self, step: int, steps: int, stats: StepStats | None) -> None:  # noqa: ARG002
        with self._lock:
            # The first since the last beat and the latest one.
            self._steps[1:] = [(step, steps)]

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        with self._lock:
            self._epochs.append((as_plain(record), epochs))

    def take(self) -> str:
        """What was gathered, as JSON."""
        with self._lock:
            taken = {"steps": self._steps, "epochs": self._epochs, "notes": self._notes}
            self._steps, self._epochs, self._notes = [], [], []
        return json.dumps(taken)


@contextmanager
def beating(say: Callable[[str, Files | None], int | None], news: News, folder: Path) -> Iterator["StopRequest"]:
    """Tell the driver each ``BEAT`` what is new of the run in ``folder``, by ``say``, and stop it when that asks.

    Gives the ``StopRequest`` of the run.
    """
    from resnetlab.train.signals import StopRequest

    stop, over, told = StopRequest(), Event(), b""

    def beat() -> None:
        nonlocal told
        state, files = _state(folder), None
        if state != told:
            with suppress(ResNetLabError, OSError):  # it changes just now
                files = pack_run(folder)
        # A mailbox that is lost comes back, and gets the checkpoint then.
        with suppress(Exception):
            signal = say(news.take(), files)
            if files is not None:
                told = state
            if signal is not None:
                stop.signal = signal

    def keep_beating() -> None:
        while not over.wait(BEAT):
            beat()

    beat()
    thread = Thread(target=keep_beating, daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        over.set()
        thread.join()
        beat()


def _state(folder: Path) -> bytes:
    """What tells one last checkpoint of the run from another: its manifest; empty without one."""
    from resnetlab.core.files import MANIFEST
    from resnetlab.train.checkpoint_manager import LAST

    try:
        return (folder / LAST / MANIFEST).read_bytes()
    except OSError:
        return b""


def do_run(
    order: str,
    files: Files,
    shipped: Callable[[str], Files | None],
    say: Callable[[str, int, str, Files | None], int | None],
) -> Answer:
    """Do the run of an ``Order``, given as JSON, from ``files``, those of its folder; ``shipped`` gives those of its
    ``data`` or ``weights``, where the driver has sent them."""
    plain, news = json.loads(order), News()
    try:
        # An order of another version may say other things.
        if plain["resnetlab"] != __version__:
            raise ConfigError(
                f"a machine of Ray has resnetlab {__version__}, and the driver {plain['resnetlab']}; install the same"
            )
        given = from_plain(Order, plain, "the order of a task")
        with scratch() as place, one_thread():
            folder = place / "run"
            unpack_run(files, folder)
            with folder_lock(folder):
                data = _data(given, place, shipped)
                _put_weights(given, place, shipped)
                with beating(lambda text, files: say(given.run, given.attempt, text, files), news, folder) as stop:
                    return _train(given, folder, data, news, stop)
    except ResNetLabError as error:
        return Answer({}, kind=type(error).__name__, message=str(error))


def _train(given: Order, folder: Path, data: "ImageData", news: News, stop: "StopRequest") -> Answer:
    from resnetlab.train.run import run_recipe

    try:
        record = run_recipe(
            given.recipe, folder, resume=True, callback=news, stop=stop, page=False, alone=True, data=data
        )
    except StoppedError:
        return Answer(pack_run(folder), stopped=True)
    keep_of(record, given.recipe, folder, given.keep)
    return Answer(pack_run(folder))


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one task, gone at its end; those of tasks that were killed go too."""
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        with suppress(BusyError, OSError, ResNetLabError), folder_lock(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, ignore_cleanup_errors=True) as name, folder_lock(Path(name)):
        yield Path(name)


_HELD: "dict[tuple[object, ...], ImageData]" = {}
"""The data that this process read last, if they are in memory: its next run may read the same."""


def _data(given: Order, place: Path, shipped: Callable[[str], Files | None]) -> "ImageData":
    """The data of the order, from the driver's path where this machine has them there, else as they were sent.

    Their SHA-256 decides. Raises ``DataError`` where neither are the driver's.
    """
    from resnetlab.data.dataset import Split
    from resnetlab.data.sources import split_source

    key = given.source, given.sha256, data_key(given.recipe)
    if key in _HELD:
        return _HELD[key]
    head, where, tail = split_source(given.source)
    data, reason = None, "nothing lies there"
    if not where or Path(where).exists():
        data, reason = _read(given, given.source)
    if data is None and where and (files := shipped("data")) is not None:
        unpack_source(files, place / "data")
        data, reason = _read(given, f"{head}{place / 'data' / Path(where).name}{tail}")
    if data is None:
        raise DataError(f"a machine of Ray does not have the data of {given.run}, {given.source}: {reason}")
    _HELD.clear()
    if all(isinstance(split, Split) for split in data.splits.values()):
        _HELD[key] = data
    return data


def _read(given: Order, source: str) -> "tuple[ImageData | None, str]":
    """The data of ``source``, or None and the reason where they are not those of the order."""
    # A file of weights says nothing of the data, and is not there yet.
    weights = None if given.weights_sha256 else given.recipe.weights
    decode = replace(given.recipe.decode, check=given.check)
    try:
        data = recipe_data(replace(given.recipe, data=source, weights=weights, decode=decode))
    except (ConfigError, DataError) as error:
        return None, str(error)
    if data.fingerprint["sha256"] != given.sha256:
        return None, "their SHA-256 is another"
    # A record says the same, wherever the data were read.
    return replace(data, source=given.named), ""


def _put_weights(given: Order, place: Path, shipped: Callable[[str], Files | None]) -> None:
    """Put the weights that the run starts from beside it, where they are looked for, if they were sent.

    Raises ``CheckpointError`` where those that would be taken are not the driver's.
    """
    from resnetlab.train.folder import begun_weights

    if given.weights_sha256 is None:
        return
    files = shipped("weights")
    if files is not None:
        unpack_source(files, place)
    found = begun_weights(place / "run", given.recipe).weights
    packed = pack_source(Path(found)) if found else None
    if packed is None or files_digest(packed) != given.weights_sha256:
        raise CheckpointError(
            f"a machine of Ray has other weights at {found} than the driver has at {given.recipe.weights}"
        )
