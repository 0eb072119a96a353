"""Gradients by depth."""

from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import Diagnosis
from resnetlab.report.diagnosis.panels import ShownNet, draw_line, drawing, finish, panels, positive, shown_nets, span
from resnetlab.report.figure import Drawing
from resnetlab.report.table import Table, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Gradients by depth"


def tables(diagnosis: Diagnosis) -> list[Table]:
    """Gradients of every block, and what arrives at it by which way."""
    blocks = {block.block: block for block in diagnosis.net.blocks}
    rows: list[tuple[str, ...]] = []
    for gradient in diagnosis.net.gradients:
        block = blocks.get(gradient.block)
        found = (block.gradient_in, block.gradient_shortcut, block.gradient_branch) if block else (None, None, None)
        rows.append((gradient.block, short(gradient.relative), *map(short, found)))
    table = Table(
        caption=f"Gradients of {diagnosis.net.label}, n = {diagnosis.batch} images",
        heads=("block", "‖∇W‖/‖W‖", "‖∂L/∂x‖", "through shortcut", "through branch"),
        rows=rows,
    )
    return [table]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """Relative gradient by block, ‖∂L/∂x‖ by block, and the two ways by which the latter arrives."""
    nets = shown_nets(diagnosis)
    words = "; ".join(span(one.name, [gradient.relative for gradient in one.net.gradients]) for one in nets)
    return [drawing("gradients", f"Relative gradient ‖∇W‖/‖W‖ by depth: {words}.", lambda: _figure(nets))]


def _figure(nets: list[ShownNet]) -> "Figure":
    with_blocks = any(one.net.blocks for one in nets)
    axes = panels(3 if with_blocks else 1)
    for one in nets:
        draw_line(axes[0], [gradient.relative or None for gradient in one.net.gradients], one)
        if with_blocks:
            draw_line(axes[1], [positive(block.gradient_in) for block in one.net.blocks], one)
    figure = finish(axes[0], "‖∇W‖/‖W‖", "stem, blocks, head", log=True)
    if with_blocks:
        finish(axes[1], "‖∂L/∂x‖, x the block's input", "block", log=True)
        net = nets[0].net
        through = ShownNet(name="through the shortcut", colour="accent", style="-", net=net)
        draw_line(axes[2], [positive(block.gradient_shortcut) for block in net.blocks], through)
        beside = ShownNet(name="through the branch", colour="warm", style="-", net=net)
        draw_line(axes[2], [positive(block.gradient_branch) for block in net.blocks], beside)
        finish(axes[2], "This net: what arrives at x", "block", log=True)
    return figure
