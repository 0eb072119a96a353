"""What the blocks add to what passes through them."""

from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import BlockStatistics, Diagnosis
from resnetlab.report.diagnosis.panels import ShownNet, draw_line, drawing, finish, panels, positive, shown_nets, span
from resnetlab.report.figure import Drawing
from resnetlab.report.table import Table, share, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "What the blocks add"


def tables(diagnosis: Diagnosis) -> list[Table]:
    """What every block adds, how near it is to the identity, and what is dead in it."""
    table = Table(
        caption=f"Blocks of {diagnosis.net.label}, n = {diagnosis.batch} images",
        heads=("block", "‖F(x)‖", "‖S(x)‖", "ratio", "responses", "cosine", "dead channels"),
        rows=[
            (
                block.block,
                short(block.branch_norm),
                short(block.shortcut_norm),
                short(block.ratio),
                " ".join(map(short, block.responses)),
                short(block.cosine),
                share(block.dead),
            )
            for block in diagnosis.net.blocks
        ],
    )
    return [table]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """‖F‖/‖S‖, the last response of each block (He et al. 2015, Figure 7), and the cosine between x and y."""
    nets = shown_nets(diagnosis)
    ratios = "; ".join(span(one.name, [block.ratio for block in one.net.blocks]) for one in nets)
    responses = "; ".join(span(one.name, [_response(block) for block in one.net.blocks]) for one in nets)
    words = f"‖F(x)‖ over what it is added to, by depth: {ratios}. Responses: {responses}."
    return [drawing("residuals", words, lambda: _figure(nets))]


def _figure(nets: list[ShownNet]) -> "Figure":
    axes = panels(3)
    for one in nets:
        draw_line(axes[0], [positive(block.ratio) for block in one.net.blocks], one)
        draw_line(axes[1], [_response(block) for block in one.net.blocks], one)
        draw_line(axes[2], [block.cosine for block in one.net.blocks], one)
    finish(axes[0], "‖F(x)‖/‖S(x)‖, plain ‖F(x)‖/‖x‖", "block", log=True)
    finish(axes[1], "Standard deviation of responses", "block")
    return finish(axes[2], "Cosine between x and y", "block")


def _response(block: BlockStatistics) -> float | None:
    return block.responses[-1] if block.responses else None
