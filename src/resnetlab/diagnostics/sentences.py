"""Sentences and advice that several analyses share. Every sentence has the number it rests on; advice comes from
verdicts alone."""

from collections.abc import Sequence

NAMED = 4
"""Blocks or settings that a sentence names at most."""

BROKEN = "A gradient is not a finite number: try a lower rate, a norm in every block, or scale_residual."
NO_SHORTCUTS = "This net has no shortcuts: its residual counterpart of equal size is the first thing to compare with."


def orders(change: float | None) -> str:
    """A change in orders of magnitude."""
    return "no number" if change is None else f"{change:+.2f} orders of magnitude"


def some(names: Sequence[str], between: str = ", ") -> str:
    """The first few of the names, and how many more there are."""
    rest = len(names) - NAMED
    return between.join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def epochs(number: int) -> str:
    """``1 epoch`` or ``2 epochs``."""
    return f"{number} epoch{'' if number == 1 else 's'}"
