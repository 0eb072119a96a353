"""The curve of a learning-rate range test, and the rate that it suggests.

The test trains while the rate grows exponentially and watches the loss (Smith 2015, arXiv:1506.01186, §3.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import Literal

MEMORY = 0.9
"""Decay of the running loss that decides when the test ends: an average over some ten steps."""
EXPLODED = 4.0
"""The test ends when the running loss is this many times its lowest."""
WINDOW = 1 / 25
"""Share of all steps, before a step and after it, that its smoothed loss is the mean of."""


@dataclass(frozen=True, kw_only=True)
class LrCurve:
    """The result of a range test: the rate of each step, its loss (nats, in training mode) and the smoothed loss.

    ``steepest`` is the rate at which the smoothed loss fell fastest, ``minimum`` the one at which it was lowest; both
    are None where it never fell. ``ended`` says why the test ended.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    steepest: float | None
    minimum: float | None
    ended: Literal["the highest rate was reached", "the loss exploded"]
    format: Literal[1] = 1


def ramp(lowest: float, highest: float, steps: int) -> list[float]:
    """Rates in equal ratios: lowest · (highest/lowest)^(i/(steps − 1))."""
    return [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]


def has_exploded(losses: Sequence[float]) -> bool:
    """Whether the running loss is more than ``EXPLODED`` times its lowest.

    It is a bias-corrected exponential moving average: mᵢ = β mᵢ₋₁ + (1 − β) xᵢ, taken as mᵢ / (1 − βⁱ).
    """
    running, mean = [], 0.0
    for number, loss in enumerate(losses, start=1):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        running.append(mean / (1 - MEMORY**number))
    return running[-1] > EXPLODED * min(running)


def smooth(losses: Sequence[float]) -> list[float]:
    """The mean of each loss and its neighbours on both sides, fewer at the ends.

    An exponential mean would lag behind, and move the steepest fall to a rate that is too high.
    """
    reach = max(2, round(WINDOW * len(losses)))
    windows = (losses[max(0, i - reach) : i + reach + 1] for i in range(len(losses)))
    return [sum(window) / len(window) for window in windows]


def suggest(rates: Sequence[float], smoothed: Sequence[float]) -> tuple[float | None, float | None]:
    """The rate of the steepest fall per decade of rate, ahead of the minimum, and the rate of the minimum.

    A fall at step i is measured from step i − 1 to i + 1. None for both where the loss was never below its start.
    """
    lowest = min(range(len(smoothed)), key=lambda i: smoothed[i])
    if lowest < 2:
        return None, None
    slopes = {
        i: (smoothed[i + 1] - smoothed[i - 1]) / (log10(rates[i + 1]) - log10(rates[i - 1])) for i in range(1, lowest)
    }
    return rates[min(slopes, key=lambda i: slopes[i])], rates[lowest]
