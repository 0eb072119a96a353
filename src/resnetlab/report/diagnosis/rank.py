"""The rank of the representation by depth."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from resnetlab.records.by_depth import BlockRank
from resnetlab.records.diagnosis import Diagnosis
from resnetlab.report.diagnosis.panels import ShownNet, draw_line, drawing, finish, panels, shown_nets, span
from resnetlab.report.figure import Drawing
from resnetlab.report.table import Table, share, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Rank of the representation"

PANELS: dict[str, Callable[[BlockRank], float | None]] = {
    "Effective rank": lambda block: block.effective,
    "Stable rank": lambda block: block.stable,
    "Share common to all images": lambda block: block.common,
}


def tables(diagnosis: Diagnosis) -> list[Table]:
    """Every block with its ranks."""
    found = diagnosis.net.rank
    assert found is not None
    return [
        Table(
            caption=f"Outputs of {diagnosis.net.label}, n = {found.n} images",
            heads=("block", "effective rank", "stable rank", "common to all images"),
            rows=[(one.block, short(one.effective), short(one.stable), share(one.common)) for one in found.blocks],
        )
    ]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """Both ranks and the common share by block."""
    nets = [one for one in shown_nets(diagnosis) if one.net.rank]
    words = "; ".join(span(one.name, _values(one, PANELS["Effective rank"])) for one in nets)
    return [drawing("rank", f"Effective rank of the blocks' outputs by depth: {words}.", lambda: _figure(nets))]


def _figure(nets: list[ShownNet]) -> "Figure":
    axes = panels(len(PANELS))
    for panel, (title, value) in zip(axes, PANELS.items(), strict=True):
        for one in nets:
            draw_line(panel, _values(one, value), one)
        panel.set_ylim(bottom=0)
        figure = finish(panel, title, "block")
    return figure


def _values(one: ShownNet, value: Callable[[BlockRank], float | None]) -> list[float | None]:
    return list(map(value, one.net.rank.blocks)) if one.net.rank else []
