"""A training run as a record: its epochs, its gradients, and every answer of the trained network on one split.

Records are plain data, written as JSON. What is printed, plotted or reported is drawn from them, without torch.
Records of format 1 (version 0.1.0) are read through ``upgrade``, wherever they stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from resnetlab.records.gradients import BlockGradient, GradientMoment

ReportedSplit = Literal["validation", "test"]
"""What figures are reported of; what chooses is validation."""
REPORT = "examination.json"
"""The file of the classification report in the folder of a run."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One split in eval mode: mean cross-entropy (nats, unsmoothed), top-1 error (a fraction) and sample count."""

    loss: float
    error: float
    n: int


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of training, counted from 1.

    ``running_loss`` and ``running_error`` are the means of the steps' own, in training mode; the metrics of a split are
    None where it was not evaluated after this epoch. ``images_per_second`` is that of training alone.
    """

    epoch: int
    learning_rate: float
    running_loss: float
    train: Metrics | None
    validation: Metrics | None = None
    test: Metrics | None = None
    seconds: float
    running_error: float | None = None
    images_per_second: float | None = None

    @property
    def trained(self) -> Metrics:
        """``train`` of an epoch that has it, as the last one of every run does."""
        assert self.train is not None
        return self.train

    @property
    def reported(self) -> Metrics:
        """The metrics to report: on test, or on validation where test was not evaluated."""
        found = self.test or self.validation
        assert found is not None
        return found

    @property
    def reported_split(self) -> ReportedSplit:
        """The split of ``reported``."""
        return "test" if self.test else "validation"


def rank_epochs(
    history: Sequence[EpochRecord], by: str = "validation_error", split: ReportedSplit | None = "validation"
) -> list[EpochRecord]:
    """The epochs from best to worst by their metrics on ``split``: the lower error, then the lower loss, then the
    earlier epoch; with ``by="validation_loss"`` the loss comes first. Without a split to choose by, the latest first.
    """

    def key(record: EpochRecord) -> tuple[float, float, int]:
        metrics = None if split is None else getattr(record, split)
        if metrics is None:
            return (inf, inf, -record.epoch)
        error, loss = metrics.error, metrics.loss
        return (loss, error, record.epoch) if by == "validation_loss" else (error, loss, record.epoch)

    return sorted(history, key=key)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training run, from its settings to its result.

    ``chosen_by`` is the split by which ``best/`` was chosen; None where nothing was chosen, and ``best/`` is the last
    epoch. Test was evaluated after the last epoch and for the best one only, or after each where nothing was chosen.
    ``gradient_trace`` has the gradients at the start, after 1, 2, 4, 8 … steps and, of a run that finished, at the end.
    ``chosen`` says what the command left open and how it was chosen, a line a choice.
    ``changes`` says which settings the run did not begin with, and since when; ``recipe`` has those it ended with.
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
    chosen_by: ReportedSplit | None = None
    changes: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)
    format: Literal[4] = 4

    @property
    def final(self) -> EpochRecord | None:
        """The last epoch of a run that finished; a run that diverged has no final figure."""
        return self.history[-1] if self.status == "finished" and self.history else None

    @property
    def best(self) -> EpochRecord | None:
        """The epoch of ``best/``; None where no epoch was completed."""
        training = self.recipe.get("training")
        by = str(training.get("best_by")) if isinstance(training, dict) else ""
        return rank_epochs(self.history, by, self.chosen_by)[0] if self.history else None

    @classmethod
    def upgrade(cls, plain: dict[str, Any]) -> dict[str, Any]:
        """A record of an earlier format as one of today's.

        In format 1 each epoch was evaluated on test, which chose the best; format 2 knew no changes, and 3 no choices.
        """
        if plain.get("format") == 1:
            plain = plain | {"chosen_by": "test", "recipe": upgrade_recipe(plain["recipe"]), "format": 2}
        return plain | {"format": 4} if plain.get("format") in (2, 3) else plain


def upgrade_recipe(plain: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run of version 0.1.0 by their names of today: it had no validation images.

    Settings that have ``validation`` stay as they are.
    """
    if "validation" in plain:
        return plain
    training = plain.get("training")
    if isinstance(training, dict) and str(training.get("best_by")).startswith("test_"):
        plain = plain | {"training": training | {"best_by": training["best_by"].replace("test_", "validation_")}}
    return plain | {"validation": False}


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class: its images, recall (the share of them predicted as it) and precision (the share of what was predicted
    as it that is right). None where the class has no image, or was never predicted."""

    n: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """An image that was predicted as another class, with the probability that the network gave that class.

    ``sample`` is its number in the split and ``name`` that of its file, where it has one; ``image`` is a PNG of at most
    128 pixels a side in base64.
    """

    sample: int
    name: str | None = None
    true: int
    predicted: int
    probability: float
    image: str


@dataclass(frozen=True, kw_only=True)
class ClassificationReport:
    """Every answer of a network on one split: ``train.evaluate.classification_report`` makes it.

    - ``confusion``: ``(true, predicted, count)`` for the counts that are not 0.
    - ``unanswered``: images with a NaN among their logits; wrong, and in no column of the confusion.
    - ``loss``: None where it is not finite; ``calibration_error``: None where nothing was answered;
      ``top5_accuracy``: None with five classes or fewer.
    - ``scores``: one entry a class; ``most_confident_errors``: the mistakes of the highest probability.
    """

    split: ReportedSplit
    classes: list[str]
    n: int
    loss: float | None
    top1_accuracy: float
    top5_accuracy: float | None
    calibration_error: float | None
    unanswered: int
    confusion: list[tuple[int, int, int]]
    scores: list[ClassScore]
    most_confident_errors: list[Mistake]
    format: Literal[2] = 2

    @classmethod
    def upgrade(cls, plain: dict[str, Any]) -> dict[str, Any]:
        """A report of format 1 as one of format 2: it was of the test split, and named two fields otherwise."""
        if plain.get("format") != 1:
            return plain
        errors = [
            {("image" if key == "picture" else key): value for key, value in mistake.items()}
            for mistake in plain["wrongest"]
        ]
        kept = {key: value for key, value in plain.items() if key != "wrongest"}
        return kept | {"split": "test", "most_confident_errors": errors, "format": 2}
