"""What was found by measuring a network in many places, as records: its loss surface, its paths, and what its answers
rest on in pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

HALF = 0.5
"""Heat from which a place of a map counts as warm; the warmest has 1."""
LARGEST_PICTURE = 128
"""Pixels of the longer side up to which a picture is kept."""


@dataclass(frozen=True, kw_only=True)
class LandscapeReading:
    """The loss on a square of ``side`` × ``side`` networks around one, along two random directions.

    ``losses[row][column]`` is the loss at w + a δ + b η, where a = ``axis[column]`` and b = ``axis[row]``; None where
    it is not a finite number. ``centre`` is the network's own, at a = b = 0, over ``n`` pictures; ``guess`` is ln C,
    that of guessing among C classes. ``flat`` and ``convex`` are shares of the square, from 0 to 1, by the rule in
    ``diagnostics.landscape``. ``flat`` is None where the network is no better than guessing, ``convex`` where no place
    can be judged.
    """

    seed: int
    n: int
    axis: list[float]
    losses: list[list[float | None]]
    centre: float | None
    guess: float
    flat: float | None
    convex: float | None

    def __post_init__(self) -> None:
        if not self.axis or _shape(self.losses) != (self.side, self.side):
            raise ValueError(f"losses must have {self.side} rows of {self.side} numbers, and at least one")

    @property
    def side(self) -> int:
        """Networks along each direction."""
        return len(self.axis)


@dataclass(frozen=True, kw_only=True)
class PathLength:
    """The paths through ``length`` branches, and through the shortcut of every other block.

    ``log_magnitude`` is log10 of the gradient at the input through one of them, on average; ``share`` is the part of
    the gradient through all paths that comes through those of this length. A gradient of exactly zero has no logarithm
    (None) and the share 0; one that is not finite has neither. ``paths`` were measured; where that is 0, the logarithm
    lies on the line between the lengths that were.
    """

    length: int
    paths: int
    log_magnitude: float | None
    share: float | None


@dataclass(frozen=True, kw_only=True)
class PathReading:
    """How long the paths are that carry a network's gradient (Veit et al. 2016, arXiv:1605.06431, Figure 6).

    ``lengths`` goes from 0 to the number of blocks; the gradient is that of one batch of ``n`` pictures. ``mean`` is
    the length of a path, weighted by gradient; those from ``low`` to ``high`` hold 95 % of it. All three are None where
    no gradient arrives, or one that is not finite.
    """

    seed: int
    n: int
    blocks: int
    lengths: list[PathLength]
    mean: float | None
    low: int | None
    high: int | None


@dataclass(frozen=True, kw_only=True)
class CamReading:
    """Where in one test picture the answer of a network rests on (Grad-CAM, Selvaraju et al. 2017, arXiv:1610.02391).

    ``sample`` is its number in the split; ``true`` and ``predicted`` are names of classes, and ``probability`` is that
    of the latter; both are None where it is no finite number. ``heat`` is the map of the predicted class as the layer
    has it, over its largest value: all 0 where nothing speaks for the class, None where it is no finite number.
    ``picture`` is a PNG of at most ``LARGEST_PICTURE`` pixels a side in base64.
    """

    sample: int
    true: str
    predicted: str | None
    probability: float | None
    heat: list[list[float | None]]
    picture: str

    def __post_init__(self) -> None:
        if not _shape(self.heat):
            raise ValueError("heat must have rows of equal length, and at least one number")

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of the map."""
        return len(self.heat), len(self.heat[0])

    @property
    def right(self) -> bool:
        """Whether the answer is the true class."""
        return self.predicted == self.true

    @property
    def warm(self) -> float | None:
        """The share of the map with at least half of the largest heat; None where there is no heat."""
        heats = [heat for row in self.heat for heat in row]
        if None in heats or not any(heats):
            return None
        return sum(heat is not None and heat >= HALF for heat in heats) / len(heats)


def _shape(rows: Sequence[Sequence[float | None]]) -> tuple[int, int] | None:
    """Rows and columns; None where the rows differ in length, or there is nothing."""
    lengths = {len(row) for row in rows}
    return (len(rows), lengths.pop()) if len(lengths) == 1 and 0 not in lengths else None
