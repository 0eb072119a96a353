"""A table as rows of text, for the terminal and for the page alike, and how its figures are written."""

from dataclasses import dataclass, replace

from resnetlab.core.stats import Interval, Sample, Share


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


def interval(values: Interval, factor: float, digits: int, unit: str = "") -> str:
    """``mean unit [low, high]`` with signs, or why there is no interval."""
    mean = plain(factor * values.mean, digits, "+") + unit
    if values.low is not None and values.high is not None:
        return f"{mean} {bounds(values, factor, digits)}"
    return f"{mean} [no interval: one seed]" if values.n == 1 else f"{mean} in every seed"


def bounds(values: Interval, factor: float, digits: int) -> str:
    """``[low, high]`` with signs; a dash where there is no interval."""
    if values.low is None or values.high is None:
        return "–"
    low, high = (plain(factor * bound, digits, "+") for bound in (values.low, values.high))
    return f"[{low}, {high}]"


def p_value(value: float) -> str:
    """Three decimals, and a fourth where three would say 0.050 of what is below it, or above."""
    if value < 0.001:
        return "< 0.001"
    text = f"{value:.3f}"
    return f"{value:.4f}" if text == "0.050" else text


def counted(values: Share | None) -> str:
    """``3 of 5 [15, 95] %``: a count with the interval of its share."""
    if values is None:
        return "–"
    return f"{values.count} of {values.n} [{100 * values.low:.0f}, {100 * values.high:.0f}] %"


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
