"""How alike the gradients of neighbouring images are, by depth."""

from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import Diagnosis
from resnetlab.report.diagnosis.panels import ShownNet, draw_line, drawing, finish, panels, shown_nets, span
from resnetlab.report.figure import Drawing
from resnetlab.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Gradients of neighbours"


def tables(diagnosis: Diagnosis) -> list[Table]:
    """Every block with the cosine at each distance."""
    found = diagnosis.net.shattering
    assert found is not None
    caption = (
        f"Cosine between ∂L/∂x of neighbouring images, {diagnosis.net.label}: mean ± standard error of {found.n} images"
    )
    return [
        Table(
            caption=caption,
            heads=("block", *(f"distance {distance:.1%}" for distance in found.distances)),
            rows=[(one.block, *map(_number, one.means, one.errors)) for one in found.blocks],
        )
    ]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """The cosine by block, a panel for each distance."""
    nets = [one for one in shown_nets(diagnosis) if one.net.shattering]
    assert diagnosis.net.shattering is not None
    distances = diagnosis.net.shattering.distances
    words = "; ".join(span(one.name, _means(one, 0)) for one in nets)
    described = f"Cosine between the gradients of images {distances[0]:.1%} of their norm apart, by depth: {words}."
    return [drawing("shattering", described, lambda: _figure(nets, distances))]


def _figure(nets: list[ShownNet], distances: list[float]) -> "Figure":
    axes = panels(len(distances))
    for place, (distance, panel) in enumerate(zip(distances, axes, strict=True)):
        for one in nets:
            draw_line(panel, _means(one, place), one)
        panel.set_ylim(-0.25, 1.05)
        figure = finish(panel, f"Cosine at a distance of {distance:.1%}", "block")
    return figure


def _means(one: ShownNet, place: int) -> list[float | None]:
    return [block.means[place] for block in one.net.shattering.blocks] if one.net.shattering else []


def _number(mean: float | None, error: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.3f}" + ("" if error is None else f" ± {error:.3f}")
