"""A diagnosis as rows of text, for the terminal and for the page alike."""

from collections.abc import Sequence

from resnetlab.records.diagnosis import Diagnosis, LandscapeReading, LesionReading, NetReading, Part
from resnetlab.records.run import Metrics
from resnetlab.report.diagnosis.figures import sizes_of
from resnetlab.report.table import Table

WORDS: dict[Part, str] = {
    "gradients": "Gradients by depth",
    "residuals": "What the blocks add",
    "signal": "Signal before training",
    "lesion": "Without some blocks",
    "paths": "Length of paths",
    "landscape": "Loss around the net",
    "cam": "What answers rest on",
    "identity": "Deeper by identity blocks",
}
"""What each part is called."""


def diagnosis_tables(diagnosis: Diagnosis, most: int | None = None) -> dict[Part, Table]:
    """The table of each part; of long ones ``most`` rows, evenly spread."""
    makers = {
        "gradients": gradient_table,
        "residuals": residual_table,
        "signal": signal_table,
        "lesion": lesion_table,
        "paths": path_table,
        "landscape": landscape_table,
        "cam": cam_table,
        "identity": identity_table,
    }
    return {finding.part: thinned(makers[finding.part](diagnosis), most) for finding in diagnosis.findings}


def thinned(table: Table, most: int | None) -> Table:
    """The table with at most so many rows, the first and the last among them, and the rest said in the caption."""
    rows = len(table.rows)
    if most is None or rows <= most:
        return table
    kept = sorted({round(number * (rows - 1) / (most - 1)) for number in range(most)})
    return Table(
        caption=f"{table.caption} ({len(kept)} of {rows} rows)",
        heads=table.heads,
        rows=[table.rows[number] for number in kept],
    )


def gradient_table(diagnosis: Diagnosis) -> Table:
    """Gradients of every block, and what arrives at it by which way."""
    blocks = {block.block: block for block in diagnosis.net.blocks}
    rows: list[tuple[str, ...]] = []
    for gradient in diagnosis.net.gradients:
        block = blocks.get(gradient.block)
        found = (block.gradient_in, block.gradient_shortcut, block.gradient_branch) if block else (None, None, None)
        rows.append((gradient.block, short(gradient.relative), *map(short, found)))
    return Table(
        caption=f"Gradients of {diagnosis.net.label}, n = {diagnosis.batch} images",
        heads=("block", "‖∇W‖/‖W‖", "‖∂L/∂x‖", "through shortcut", "through branch"),
        rows=rows,
    )


def residual_table(diagnosis: Diagnosis) -> Table:
    """What every block adds, how near it is to the identity, and what is dead in it."""
    return Table(
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


def signal_table(diagnosis: Diagnosis) -> Table:
    """Every setting of the grid with its changes and verdict."""
    first = diagnosis.signal[0].setting
    return Table(
        caption="Change over all blocks before training, in orders of magnitude",
        heads=(*first, "signal", "gradient", "verdict"),
        rows=[
            (*(reading.setting.get(name, "–") for name in first), signed(reading.forward), signed(reading.backward),
             reading.verdict)
            for reading in diagnosis.signal
        ],
    )  # fmt: skip


def lesion_table(diagnosis: Diagnosis) -> Table:
    """What is left out or exchanged, and the test error then."""
    rows: list[tuple[str, ...]] = []
    for net in (diagnosis.net, diagnosis.control):
        if net and net.lesion:
            rows += _lesion_rows(net, net.lesion)
    n = diagnosis.net.lesion.n if diagnosis.net.lesion else 0
    return Table(
        caption=f"Test error without retraining, n = {n:,} test images",
        heads=("net", "change", "changes tried", "mean error %", "lowest %", "highest %"),
        rows=rows,
    )


def block_table(found: LesionReading) -> Table:
    """The test error without each single block."""
    return Table(
        caption=f"Without one block, n = {found.n:,} test images",
        heads=("block", "error %", "points more", "loss"),
        rows=[
            (change.blocks[0], percent(change.error), f"{100 * cost:+.2f}", short(change.loss))
            for change, cost in zip(found.dropped, found.costs, strict=True)
        ],
    )


def path_table(diagnosis: Diagnosis) -> Table:
    """Every length with the gradient that one path of it carries, and all of them."""
    found = diagnosis.net.paths
    assert found is not None
    return Table(
        caption=f"Paths of {diagnosis.net.label}, by the branches on them, n = {found.n} images",
        heads=("branches", "paths measured", "log₁₀ ‖∂L/∂x‖ of one", "share of all"),
        rows=[
            (str(item.length), str(item.paths), short(item.log_magnitude), share(item.share)) for item in found.lengths
        ],
    )


def landscape_table(diagnosis: Diagnosis) -> Table:
    """The loss of the net and on the square around it."""
    shown = [(net, net.landscape) for net in (diagnosis.net, diagnosis.control) if net and net.landscape]
    return Table(
        caption=f"Loss around the net, n = {shown[0][1].n:,} training images, {shown[0][1].side}² networks",
        heads=("net", "centre", "by guessing", "lowest", "highest", "not finite", "flat", "convex"),
        rows=[(net.model, *_landscape_cells(found)) for net, found in shown],
    )


def cam_table(diagnosis: Diagnosis) -> Table:
    """Every image that was looked at, with its answer."""
    return Table(
        caption="Test images by number, and the share of their map that is warm",
        heads=("net", "image", "true", "predicted", "probability", "warm"),
        rows=[
            (net.model, str(cam.sample), cam.true, cam.predicted or "–", share(cam.probability), share(cam.warm))
            for net in (diagnosis.net, diagnosis.control)
            if net
            for cam in net.cams
        ],
    )


def identity_table(diagnosis: Diagnosis) -> Table:
    """The net before, deepened, and both after training on."""
    found = diagnosis.identity
    assert found is not None
    return Table(
        caption=f"Test error and loss, n = {found.before.n:,}",
        heads=("net", "epochs more", "error %", "loss"),
        rows=[
            ("as it was, and deepened" if found.equal else "as it was", "0", *_figures(found.before)),
            (f"with {found.added} more blocks", str(found.epochs), *_figures(found.deeper)),
            ("of the old depth", str(found.epochs), *_figures(found.same)),
        ],
    )


def short(value: float | None) -> str:
    """Three digits, in powers of ten where it is far from 1; a dash for what is no number."""
    return "–" if value is None else f"{value:.3g}"


def signed(value: float | None) -> str:
    """A change with its sign."""
    return "–" if value is None else f"{value:+.2f}"


def share(value: float | None) -> str:
    """A fraction in percent."""
    return "–" if value is None else f"{value:.1%}"


def percent(value: float) -> str:
    """An error in percent, without the sign."""
    return f"{100 * value:.2f}"


def _figures(metrics: Metrics) -> tuple[str, str]:
    return percent(metrics.error), f"{metrics.loss:.4f}"


def _landscape_cells(found: LandscapeReading) -> tuple[str, ...]:
    known = [loss for row in found.losses for loss in row if loss is not None]
    ends = (min(known), max(known)) if known else (None, None)
    missing = str(found.side**2 - len(known))
    return (*map(short, (found.centre, found.guess, *ends)), missing, share(found.flat), share(found.convex))


def _lesion_rows(net: NetReading, found: LesionReading) -> list[tuple[str, ...]]:
    names = {0: "whole", 1: "without one block"}
    rows = [
        _errors_row(net.model, names.get(size, f"without {size} blocks"), errors)
        for size, errors in sizes_of(found).items()
    ]
    if found.swapped:
        rows.append(_errors_row(net.model, "two neighbours exchanged", [change.error for change in found.swapped]))
    return rows


def _errors_row(model: str, what: str, errors: Sequence[float]) -> tuple[str, ...]:
    mean = sum(errors) / len(errors)
    return (model, what, str(len(errors)), percent(mean), percent(min(errors)), percent(max(errors)))
