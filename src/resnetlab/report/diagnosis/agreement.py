"""How well the gradients of different batches agree, by depth."""

from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import Diagnosis
from resnetlab.report.diagnosis.panels import ShownNet, draw_line, drawing, finish, panels, shown_nets, span
from resnetlab.report.figure import Drawing
from resnetlab.report.table import Table, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Gradients of different batches"


def tables(diagnosis: Diagnosis) -> list[Table]:
    """Every block with the mean cosine over the pairs of batches, and the least."""
    found = diagnosis.net.agreement
    assert found is not None
    caption = f"Cosine between the gradients of {found.batches} batches of {found.n} images, {diagnosis.net.label}"
    rows: list[tuple[str, ...]] = [
        (one.block, short(one.mean), short(one.least)) for one in (found.whole, *found.blocks)
    ]
    return [Table(caption=caption, heads=("block", "mean of all pairs", "least"), rows=rows)]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """The mean cosine by block."""
    nets = [one for one in shown_nets(diagnosis) if one.net.agreement]
    words = "; ".join(span(one.name, _means(one)) for one in nets)
    return [
        drawing("agreement", f"Cosine between the gradients of two batches, by depth: {words}.", lambda: _figure(nets))
    ]


def _figure(nets: list[ShownNet]) -> "Figure":
    (axes,) = panels(1)
    for one in nets:
        draw_line(axes, _means(one), one)
    return finish(axes, "Cosine between the gradients of two batches", "stem, blocks, head")


def _means(one: ShownNet) -> list[float | None]:
    return [block.mean for block in one.net.agreement.blocks] if one.net.agreement else []
