"""How the tables of a diagnosis write numbers, and which rows of long ones the terminal shows."""

from dataclasses import replace

from resnetlab.report.table import Table


def short(value: float | None) -> str:
    """Three digits, in powers of ten where it is far from 1; a dash for what is no number."""
    return "–" if value is None else f"{value:.3g}"


def signed(value: float | None) -> str:
    """A change with its sign."""
    return "–" if value is None else f"{value:+.2f}"


def share(value: float | None) -> str:
    """A fraction in percent."""
    return "–" if value is None else f"{value:.1%}"


def points(error: float) -> str:
    """An error in percent, without the sign."""
    return f"{100 * error:.2f}"


def thinned(table: Table, most: int) -> Table:
    """The table with at most so many rows, the first and the last among them, and the rest said in the caption."""
    rows = len(table.rows)
    if rows <= most:
        return table
    kept = sorted({round(number * (rows - 1) / (most - 1)) for number in range(most)})
    caption = f"{table.caption} ({len(kept)} of {rows} rows)"
    return replace(table, caption=caption, rows=[table.rows[number] for number in kept])
