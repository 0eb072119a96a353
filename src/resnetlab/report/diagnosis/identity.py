"""The network made deeper by identity blocks, and trained on."""

from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import Diagnosis, IdentityResult
from resnetlab.records.run import Metrics
from resnetlab.report.diagnosis.panels import drawing, finish, panels
from resnetlab.report.figure import Drawing
from resnetlab.report.run.figures import PALETTE
from resnetlab.report.table import Table, points

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Deeper by identity blocks"


def tables(diagnosis: Diagnosis) -> list[Table]:
    """The net before, deepened, and both after training on."""
    found = diagnosis.net.identity
    assert found is not None
    rows: list[tuple[str, ...]] = [
        ("as it was, and deepened" if found.equal else "as it was", "0", *_cells(found.before)),
        (f"with {found.added} more blocks", str(found.epochs), *_cells(found.deeper)),
        ("of the old depth", str(found.epochs), *_cells(found.same)),
    ]
    caption = f"{diagnosis.split.capitalize()} error and loss, n = {found.before.n:,}"
    return [Table(caption=caption, heads=("net", "epochs more", "error %", "loss"), rows=rows)]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """The error before, and after training on, deeper and not."""
    found, split = diagnosis.net.identity, diagnosis.split.capitalize()
    assert found is not None
    words = (
        f"{split} error {found.before.error:.1%} before. Trained on (epochs: {found.epochs}) "
        f"{found.deeper.error:.1%} with {found.added} more blocks and {found.same.error:.1%} without them."
    )
    return [drawing("identity", words, lambda: _figure(found, split))]


def _figure(found: IdentityResult, split: str) -> "Figure":
    (axes,) = panels(1)
    for name, colour, after in (("deeper net", "accent", found.deeper), ("old depth", "warm", found.same)):
        errors = [100 * found.before.error, 100 * after.error]
        axes.plot([0, found.epochs], errors, "o-", color=PALETTE[colour], label=name, lw=1.8, ms=4)
    axes.set_ylim(bottom=0)
    return finish(axes, f"{split} error, %", "more epochs of training")


def _cells(metrics: Metrics) -> tuple[str, str]:
    return points(metrics.error), f"{metrics.loss:.4f}"
