"""The record of every answer of a network on one split; like all records it is read without torch."""

from dataclasses import dataclass
from typing import Literal

EXAMINATION = "examination.json"
"""Its file in the folder of a run."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class: its test pictures, the share of them that was found (recall), and how much of what was taken for it
    was right (precision). None where the class has no picture, or was never predicted."""

    n: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A test picture that was taken for another class, with the probability that the network gave that class.

    ``sample`` is its number in the split, ``picture`` a PNG of at most 128 pixels a side in base64.
    """

    sample: int
    true: int
    predicted: int
    probability: float
    picture: str


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Every answer of a network on one split: ``train.examine`` makes it.

    ``confusion`` has ``(true, predicted, count)`` for the counts that are not 0. The ``unanswered`` are pictures with a
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
