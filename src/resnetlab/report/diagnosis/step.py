"""How far one step of the optimizer moves each block."""

from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import Diagnosis
from resnetlab.report.diagnosis.panels import ShownNet, draw_line, drawing, finish, panels, positive, shown_nets, span
from resnetlab.report.figure import Drawing
from resnetlab.report.table import Table, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "One step of the optimizer"


def tables(diagnosis: Diagnosis) -> list[Table]:
    """Every block with its relative change."""
    found = diagnosis.net.step
    assert found is not None
    caption = f"One step of {found.optimizer} at {found.lr:g} on {found.n} images, {diagnosis.net.label}"
    rows: list[tuple[str, ...]] = [
        ("all weights", short(found.whole)),
        *((name, short(value)) for name, value in found.blocks.items()),
    ]
    return [Table(caption=caption, heads=("block", "‖ΔW‖/‖W‖"), rows=rows)]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """The relative change by block, on a log scale."""
    nets = [one for one in shown_nets(diagnosis) if one.net.step]
    words = "; ".join(span(one.name, _changes(one)) for one in nets)
    return [drawing("step", f"Relative change ‖ΔW‖/‖W‖ by one step, by depth: {words}.", lambda: _figure(nets))]


def _figure(nets: list[ShownNet]) -> "Figure":
    (axes,) = panels(1)
    for one in nets:
        draw_line(axes, list(map(positive, _changes(one))), one)
    return finish(axes, "‖ΔW‖/‖W‖ of one step", "stem, blocks, head", log=True)


def _changes(one: ShownNet) -> list[float | None]:
    return list(one.net.step.blocks.values()) if one.net.step else []
