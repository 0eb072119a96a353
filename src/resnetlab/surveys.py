"""What was found by measuring a network in many places, as records: its loss surface, and its paths."""

from dataclasses import dataclass


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

    ``lengths`` goes from 0 to the number of blocks. ``mean`` is the length of a path, weighted by gradient; those from
    ``low`` to ``high`` hold 95 % of it. All three are None where no gradient arrives, or one that is not finite.
    """

    seed: int
    blocks: int
    lengths: list[PathLength]
    mean: float | None
    low: int | None
    high: int | None
