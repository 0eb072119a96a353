"""A result is a record: what is printed, plotted or reported is drawn from these and from nothing else.

Records are plain data, written as JSON; reading them needs neither torch nor the network that they tell of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin

from resnetlab.errors import DataError
from resnetlab.files import read_json, write_json
from resnetlab.stats import Interval, Sample

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One split in eval mode: mean cross-entropy (nats, unsmoothed), top-1 error (a fraction) and sample count."""

    loss: float
    error: float
    n: int


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One pass over the training set, counted from 1.

    ``running_loss`` and ``running_error`` are the means of the steps' own, in training mode; ``train`` is None where
    the training set was not evaluated. ``images_per_second`` is that of training alone.
    """

    epoch: int
    learning_rate: float
    running_loss: float
    train: Metrics | None
    test: Metrics
    seconds: float
    running_error: float | None = None
    images_per_second: float | None = None

    @property
    def trained(self) -> Metrics:
        """``train`` of an epoch that has it, as the last one of every run does."""
        assert self.train is not None
        return self.train


def rank_epochs(history: Sequence[EpochRecord], by: str = "test_error") -> list[EpochRecord]:
    """The epochs from the best to the worst: by the lower test error, among equals by the lower test loss, then the
    earlier; with ``by="test_loss"`` the loss comes first."""

    def key(record: EpochRecord) -> tuple[float, float, int]:
        error, loss = record.test.error, record.test.loss
        return (error, loss, record.epoch) if by == "test_error" else (loss, error, record.epoch)

    return sorted(history, key=key)


def best_epoch(history: Sequence[EpochRecord], by: str = "test_error") -> EpochRecord:
    """The first of ``rank_epochs``."""
    return rank_epochs(history, by)[0]


@dataclass(frozen=True, kw_only=True)
class BlockGradient:
    """‖∇W‖ and ‖W‖ (L2, over the weights of one block's convolutions and matrices) for one batch.

    None stands for a norm that is not a finite number: the signal overflowed on its way through the net.
    """

    block: str
    gradient_norm: float | None
    weight_norm: float | None

    @property
    def relative(self) -> float | None:
        """‖∇W‖ / ‖W‖; None where it is not a finite number."""
        return self.gradient_norm / self.weight_norm if self.gradient_norm is not None and self.weight_norm else None


@dataclass(frozen=True, kw_only=True)
class GradientMoment:
    """How the gradient stands over depth after so many steps of the optimizer, for one batch.

    ``first`` and ``last`` are ‖∇W‖/‖W‖ of the first and the last block, ``growth`` is that of ``Flow``. None where a
    number is not finite, and the growth also where a gradient is zero.
    """

    step: int
    first: float | None
    last: float | None
    growth: float | None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training run, from its settings to its result.

    ``gradient_trace`` has the gradients at the start, after 1, 2, 4, 8 … steps and, of a run that finished, at the end.
    """

    model: str
    recipe: dict[str, Any]
    parameters: int
    multiply_adds: int
    status: Literal["finished", "diverged"]
    message: str
    history: list[EpochRecord]
    gradients_start: list[BlockGradient]
    gradients_end: list[BlockGradient]
    data: dict[str, Any]
    environment: dict[str, Any]
    seconds: float
    gradient_trace: list[GradientMoment] = field(default_factory=list)
    format: Literal[1] = 1

    @property
    def final(self) -> EpochRecord | None:
        """The last epoch of a run that finished; a run that diverged has no final figure."""
        return self.history[-1] if self.status == "finished" and self.history else None


@dataclass(frozen=True, kw_only=True)
class Flow:
    """How the relative gradient of a net's blocks changes over depth, and the verdict on it.

    ``growth`` is in orders of magnitude from the last block to the first, the way that gradients travel; None where a
    norm is zero or not finite. ``diagnostics.flow`` says by which rule.
    """

    growth: float | None
    verdict: Literal["exploding", "vanishing", "healthy", "silent", "broken"]


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """One run of a study: its place in the grid, its record, and what its gradients did before and after training."""

    kind: str
    depth: int
    seed: int
    flow_start: Flow
    flow_end: Flow
    record: RunRecord


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind at one depth, over its seeds. A figure is None where every run diverged."""

    kind: str
    depth: int
    model: str
    parameters: int
    multiply_adds: int
    diverged: int
    train_loss: Sample | None
    train_error: Sample | None
    test_error: Sample | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Plain minus residual at one depth, paired by seed, over the seeds for which both runs finished."""

    depth: int
    train_loss: Interval
    train_error: Interval
    test_error: Interval


@dataclass(frozen=True, kw_only=True)
class Step:
    """Training error of a net minus that of a shallower one, paired by seed."""

    shallow: int
    deep: int
    train_error: Interval


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Does training error grow with depth? The answer for one kind, and the comparisons behind it."""

    kind: str
    answer: Literal["grows", "does not grow", "undecided"]
    reason: str
    steps: list[Step]


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study, whole or as far as it has come: settings, runs, and the statistics over seeds.

    ``command`` makes the study again; ``planned`` is the number of runs that it has when whole; ``rules`` say how the
    verdicts on degradation and gradients were reached.
    """

    settings: dict[str, Any]
    command: str
    rules: dict[Literal["degradation", "gradients"], str]
    planned: int
    runs: list[StudyRun]
    cells: list[Cell]
    pairs: list[Pair]
    verdicts: list[Verdict]
    format: Literal[1] = 1


@lru_cache
def _converter() -> Any:
    from cattrs.preconf.json import make_converter

    converter = make_converter(forbid_extra_keys=True)
    for kind in (int, float, bool, str):
        converter.register_structure_hook(kind, _strictly)
    # As in JSON: cattrs would leave a pair a tuple, which is not equal to the list that is read again.
    converter.register_unstructure_hook_func(
        _is_pair, lambda values: [converter.unstructure(value) for value in values]
    )
    return converter


def _is_pair(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is tuple


def _strictly(value: Any, kind: type) -> Any:
    """``value`` if it is of that very type; cattrs would make 2 of 2.7, and True of "false"."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (isinstance(value, float) and not isfinite(value)):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def as_plain(record: object) -> Any:
    """The record as dicts, lists, strings and numbers."""
    return _converter().unstructure(record)


def from_plain(kind: type[Record], value: Any, origin: str) -> Record:
    """The record of that kind. Raises ``DataError`` naming ``origin`` where a key is missing, unknown or ill-typed."""
    from cattrs import transform_error

    if is_dataclass(kind) and not isinstance(value, dict):
        raise DataError(f"{origin} holds no {kind.__name__}; it was damaged or is not ours")
    try:
        result: Record = _converter().structure(value, kind)
    except Exception as error:
        name = getattr(kind, "__name__", kind)
        raise DataError(f"{origin} is not a valid {name}: {'; '.join(transform_error(error))}") from error
    return result


def write_record(path: Path, record: object) -> None:
    """The record as a JSON file, which ``read_record`` reads."""
    write_json(path, as_plain(record))


def read_record(kind: type[Record], path: Path) -> Record:
    """Raises ``DataError`` where the file is missing, damaged or no record of that kind."""
    return from_plain(kind, read_json(path), str(path))
