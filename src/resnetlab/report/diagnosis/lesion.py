"""The error of a network without some of its blocks."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import Diagnosis, LesionResult
from resnetlab.report.diagnosis.panels import ShownNet, draw_line, drawing, finish, panels, shown_nets, span
from resnetlab.report.figure import Drawing
from resnetlab.report.run.figures import PALETTE
from resnetlab.report.table import Table, points, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Without some blocks"


def tables(diagnosis: Diagnosis) -> list[Table]:
    """What is left out or exchanged and the error then, and the error without each single block."""
    found = diagnosis.net.lesion
    assert found is not None
    on = f"n = {found.n:,} {diagnosis.split} images"
    changes = Table(
        caption=f"{diagnosis.split.capitalize()} error without retraining, {on}",
        heads=("net", "change", "changes tried", "mean error %", "lowest %", "highest %"),
        rows=[row for one in _with_lesions(diagnosis) for row in _rows(one.net.model, one.net.lesion)],
    )
    single = Table(
        caption=f"Without one block, {on}",
        heads=("block", "error %", "points more", "loss"),
        rows=[
            (change.blocks[0], points(change.error), f"{100 * cost:+.2f}", short(change.loss))
            for change, cost in zip(found.dropped, found.costs, strict=True)
        ],
    )
    return [changes, single]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """The error without each block, and without several at once."""
    nets = _with_lesions(diagnosis)
    split = diagnosis.split.capitalize()
    parts = [
        f"{one.name}: whole {one.net.lesion.intact.error:.1%}, "
        + span("without one block", [100 * change.error for change in one.net.lesion.dropped])
        for one in nets
        if one.net.lesion
    ]
    words = f"{split} error in percent with blocks left out: {'; '.join(parts)}."
    return [drawing("lesion", words, lambda: _figure(nets, split))]


def _with_lesions(diagnosis: Diagnosis) -> list[ShownNet]:
    return [one for one in shown_nets(diagnosis) if one.net.lesion]


def _figure(nets: list[ShownNet], split: str) -> "Figure":
    axes = panels(2)
    for one in nets:
        found, colour = one.net.lesion, PALETTE[one.colour]
        assert found is not None
        axes[0].axhline(100 * found.intact.error, color=colour, lw=0.9, ls="--")
        draw_line(axes[0], [100 * change.error for change in found.dropped], one)
        sizes = _by_size(found)
        axes[1].plot(list(sizes), [100 * fmean(errors) for errors in sizes.values()], "-", color=colour)
        for size, errors in sizes.items():
            axes[1].plot([size] * len(errors), [100 * error for error in errors], "o", color=colour, ms=3.5)
    finish(axes[0], f"{split} error without one block, %", "block that is left out")
    figure = finish(axes[1], f"{split} error without several blocks, %", "number of random blocks left out")
    for panel in axes:
        panel.set_ylim(0, 100)
    return figure


def _by_size(found: LesionResult) -> dict[int, list[float]]:
    """Errors by the number of blocks that were left out: none, each alone, and the random sets."""
    sizes = {0: [found.intact.error], 1: [change.error for change in found.dropped]}
    for change in found.several:
        sizes.setdefault(len(change.blocks), []).append(change.error)
    return sizes


def _rows(model: str, found: LesionResult | None) -> list[tuple[str, ...]]:
    assert found is not None
    names = {0: "whole", 1: "without one block"}
    rows = [_row(model, names.get(size, f"without {size} blocks"), errors) for size, errors in _by_size(found).items()]
    if found.swapped:
        rows.append(_row(model, "two neighbours exchanged", [change.error for change in found.swapped]))
    return rows


def _row(model: str, what: str, errors: Sequence[float]) -> tuple[str, ...]:
    mean = sum(errors) / len(errors)
    return (model, what, str(len(errors)), points(mean), points(min(errors)), points(max(errors)))
