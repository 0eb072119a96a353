"""A training run as a record: its epochs, its gradients, and every answer of the trained network on one split.

Records are plain data, written as JSON. What is printed, plotted or reported is drawn from them, without torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from resnetlab.records.gradients import BlockGradient, GradientMoment

EXAMINATION = "examination.json"
"""Its file in the folder of a run."""


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
class ClassScore:
    """One class: its test images, the share of them that was found (recall), and how much of what was taken for it
    was right (precision). None where the class has no image, or was never predicted."""

    n: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A test image that was taken for another class, with the probability that the network gave that class.

    ``sample`` is its number in the split, ``image`` a PNG of at most 128 pixels a side in base64.
    """

    sample: int
    true: int
    predicted: int
    probability: float
    picture: str


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Every answer of a network on one split: ``train.examine`` makes it.

    ``confusion`` has ``(true, predicted, count)`` for the counts that are not 0. The ``unanswered`` are images with a
    NaN among their logits: wrong, and in no column. ``loss`` is None where it is not finite, ``calibration_error``
    where nothing was answered, ``top5_accuracy`` with five classes or fewer. ``scores`` has one entry a class,
    ``wrongest`` the mistakes of the highest probability.
    """

    classes: list[str]
    n: int
    loss: float | None
    top1_accuracy: float
    top5_accuracy: float | None
    calibration_error: float | None
    unanswered: int
    confusion: list[tuple[int, int, int]]
    scores: list[ClassScore]
    wrongest: list[Mistake]
    format: Literal[1] = 1
