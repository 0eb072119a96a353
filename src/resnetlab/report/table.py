"""A table as rows of text, for the terminal and for the page alike, and how its figures are written."""

from dataclasses import dataclass, replace

from resnetlab.core.stats import Interval, Sample


@dataclass(frozen=True, kw_only=True)
class Table:
    """A caption, the heads of the columns, and rows of as many texts."""

    caption: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]


def thinned(table: Table, most: int) -> Table:
    """The table with at most so many rows, the first and the last among them, and the rest said in the caption."""
    rows = len(table.rows)
    if rows <= most:
        return table
    kept = sorted({round(number * (rows - 1) / (most - 1)) for number in range(most)})
    caption = f"{table.caption} ({len(kept)} of {rows} rows)"
    return replace(table, caption=caption, rows=[table.rows[number] for number in kept])


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


def short(value: float | None) -> str:
    """Three digits, in powers of ten where it is far from 1; a dash for what is no number."""
    return "–" if value is None else f"{value:.3g}"


def signed(value: float | None) -> str:
    """A change with its sign."""
    return "–" if value is None else f"{value:+.2f}"


def share(value: float | None) -> str:
    """A fraction in percent, with the sign; a dash for what is no number."""
    return "–" if value is None else f"{value:.1%}"


def points(value: float | None) -> str:
    """A fraction in percent with two decimals, without the sign; a dash for what is no number."""
    return "–" if value is None else f"{100 * value:.2f}"
