"""A table as rows of text, for the terminal and for the page alike, and how its figures are written."""

from dataclasses import dataclass

from resnetlab.core.stats import Interval, Sample


@dataclass(frozen=True, kw_only=True)
class Table:
    """A caption, the heads of the columns, and rows of as many texts."""

    caption: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]


def percent(values: Sample | None) -> str:
    """A fraction as percent with its standard deviation."""
    if values is None:
        return "diverged"
    return f"{100 * values.mean:.2f}" + ("" if values.sd is None else f" ± {100 * values.sd:.2f}")


def number(values: Sample | None) -> str:
    """A loss with its standard deviation."""
    if values is None:
        return "diverged"
    return plain(values.mean, 4) + ("" if values.sd is None else f" ± {plain(values.sd, 4)}")


def interval(values: Interval, factor: float, digits: int) -> str:
    """``mean [low, high]`` with signs."""
    mean = plain(factor * values.mean, digits, "+")
    if values.low is None or values.high is None:
        return f"{mean} [no interval: one seed]"
    low, high = (plain(factor * bound, digits, "+") for bound in (values.low, values.high))
    return f"{mean} [{low}, {high}]"


def plain(value: float, digits: int, sign: str = "-") -> str:
    """The value with so many decimals; in powers of ten where a net that barely trained has a loss of millions."""
    return f"{value:{sign}.{digits}f}" if abs(value) < 1e5 else f"{value:{sign}.1e}"
