"""The figures of a diagnosis, one for each part, drawn from its record in the colours of the page."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import (
    BlockReading,
    Diagnosis,
    IdentityReading,
    LesionReading,
    NetReading,
    SignalReading,
)
from resnetlab.report.diagnosis.survey_figures import draw_survey_figures
from resnetlab.report.figure import plainly, to_svg
from resnetlab.report.run.figures import MARKED, PALETTE, RUN_STYLE, Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Value = float | None
MARKS = {"steady": "o", "exploding": "^", "vanishing": "v", "silent": "x", "broken": "X"}
EDGE = 12.0
"""Orders of magnitude at which the axis of the grid ends; what lies beyond stands there."""
LONGEST = 60
"""Letters of a row's name in the grid."""


def draw_diagnosis_figures(diagnosis: Diagnosis) -> list[Curves]:
    """One drawing for each part that the record has, named after it; of images ``draw_cam_sheets`` makes sheets."""
    import matplotlib as mpl

    nets = shown_nets(diagnosis)
    parts = {finding.part for finding in diagnosis.findings}
    with mpl.rc_context(RUN_STYLE):
        found = []
        if "gradients" in parts:
            found.append(("gradients", describe_gradients(nets), draw_gradients(nets)))
        if "residuals" in parts:
            found.append(("residuals", describe_residuals(nets), draw_residuals(nets)))
        if diagnosis.signal:
            found.append(("signal", describe_signal(diagnosis.signal), draw_signal(diagnosis.signal)))
        if diagnosis.net.lesion:
            found.append(("lesion", describe_lesion(nets), draw_lesion(nets)))
        if diagnosis.identity:
            found.append(("identity", describe_identity(diagnosis.identity), draw_identity(diagnosis.identity)))
        drawn = [Curves(name=name, description=words, svg=to_svg(figure)) for name, words, figure in found]
        return drawn + draw_survey_figures(diagnosis)


def shown_nets(diagnosis: Diagnosis) -> list[tuple[str, str, str, NetReading]]:
    """What each line is called, its colour and style, and the net that it tells of. Names from outside stay out."""
    lines = [
        ("this net", "accent", "-", diagnosis.net),
        ("this net, before training", "soft", ":", diagnosis.initial),
        ("plain twin", "warm", "-", diagnosis.control),
    ]
    return [(name, colour, style, net) for name, colour, style, net in lines if net]


Nets = list[tuple[str, str, str, NetReading]]


def draw_gradients(nets: Nets) -> "Figure":
    """Relative gradient by block, ‖∂L/∂x‖ by block, and the two ways by which the latter arrives."""
    with_blocks = any(net.blocks for *_, net in nets)
    axes = _panels(3 if with_blocks else 1)
    for name, colour, style, net in nets:
        _line(axes[0], [gradient.relative or None for gradient in net.gradients], name, colour, style)
        if with_blocks:
            _line(axes[1], [_positive(block.gradient_in) for block in net.blocks], name, colour, style)
    _finish(axes[0], "‖∇W‖/‖W‖", "stem, blocks, head", log=True)
    if with_blocks:
        _finish(axes[1], "‖∂L/∂x‖, x the block's input", "block", log=True)
        blocks = nets[0][3].blocks
        _line(axes[2], [_positive(block.gradient_shortcut) for block in blocks], "through the shortcut", "accent", "-")
        _line(axes[2], [_positive(block.gradient_branch) for block in blocks], "through the branch", "warm", "-")
        _finish(axes[2], "This net: what arrives at x", "block", log=True)
    return axes[0].figure  # type: ignore[return-value]  # no subfigure


def draw_residuals(nets: Nets) -> "Figure":
    """‖F‖/‖S‖, the last response of each block (He et al. 2015, Figure 7), and the cosine between x and y."""
    axes = _panels(3)
    for name, colour, style, net in nets:
        _line(axes[0], [_positive(block.ratio) for block in net.blocks], name, colour, style)
        _line(axes[1], [_response(block) for block in net.blocks], name, colour, style)
        _line(axes[2], [block.cosine for block in net.blocks], name, colour, style)
    _finish(axes[0], "‖F(x)‖/‖S(x)‖, plain ‖F(x)‖/‖x‖", "block", log=True)
    _finish(axes[1], "Standard deviation of responses", "block")
    _finish(axes[2], "Cosine between x and y", "block")
    return axes[0].figure  # type: ignore[return-value]


def draw_signal(readings: Sequence[SignalReading]) -> "Figure":
    """A row for each setting: the change of the signal and that of the gradient, in orders of magnitude."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 0.23 * len(readings) + 1.0), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(-2, 2, color=PALETTE["line"], alpha=0.6, lw=0)
    for row, reading in enumerate(readings):
        for value, colour in ((reading.forward, "accent"), (reading.backward, "warm")):
            if value is not None:
                mark = MARKS[reading.verdict]
                axes.plot(max(-EDGE, min(EDGE, value)), row, mark, color=PALETTE[colour], ms=5, clip_on=False)
        if reading.forward is None and reading.backward is None:
            axes.text(0, row, reading.verdict, ha="center", va="center", fontsize=8)
    axes.plot([], [], "o", color=PALETTE["accent"], label="signal, first block to last")
    axes.plot([], [], "o", color=PALETTE["warm"], label="gradient, last block to first")
    names = [plainly(row_name(reading), LONGEST) for reading in readings]
    axes.set_yticks(range(len(readings)), names, fontsize=8, parse_math=False)
    axes.set_ylim(len(readings) - 0.5, -0.5)
    axes.set_xlim(-EDGE, EDGE)
    axes.set_xlabel("change in orders of magnitude; within the band: steady")
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def draw_lesion(nets: Nets) -> "Figure":
    """Test error without each block, and without several at once."""
    axes = _panels(2)
    for name, colour, _, net in nets:
        if net.lesion is None:
            continue
        found = net.lesion
        axes[0].axhline(100 * found.intact.error, color=PALETTE[colour], lw=0.9, ls="--")
        _line(axes[0], [100 * change.error for change in found.dropped], name, colour, "-")
        sizes = sizes_of(found)
        axes[1].plot(list(sizes), [100 * fmean(errors) for errors in sizes.values()], "-", color=PALETTE[colour])
        for size, errors in sizes.items():
            axes[1].plot([size] * len(errors), [100 * error for error in errors], "o", color=PALETTE[colour], ms=3.5)
    _finish(axes[0], "Test error without one block, %", "block that is left out")
    _finish(axes[1], "Test error without so many blocks, %", "blocks left out at random")
    for panel in axes:
        panel.set_ylim(0, 100)
    return axes[0].figure  # type: ignore[return-value]


def draw_identity(reading: IdentityReading) -> "Figure":
    """Test error before, and after training on, deeper and not."""
    (axes,) = _panels(1)
    for name, colour, after in (("deeper net", "accent", reading.deeper), ("old depth", "warm", reading.same)):
        errors = [100 * reading.before.error, 100 * after.error]
        axes.plot([0, reading.epochs], errors, "o-", color=PALETTE[colour], label=name, lw=1.8, ms=4)
    axes.set_ylim(bottom=0)
    _finish(axes, "Test error, %", "more epochs of training")
    return axes.figure  # type: ignore[return-value]


def sizes_of(found: LesionReading) -> dict[int, list[float]]:
    """Test errors by the number of blocks that were left out: none, each alone, and the random sets."""
    sizes = {0: [found.intact.error], 1: [change.error for change in found.dropped]}
    for change in found.several:
        sizes.setdefault(len(change.blocks), []).append(change.error)
    return sizes


def row_name(reading: SignalReading) -> str:
    """A setting in a few words."""
    return ", ".join(
        f"{text} blocks" if name == "blocks" else f"norm {text}" if name == "norm" else text
        for name, text in reading.setting.items()
    )


def describe_gradients(nets: Nets) -> str:
    """The gradients in words, for those who do not see them."""
    parts = [_span(name, [gradient.relative for gradient in net.gradients]) for name, _, _, net in nets]
    return f"Relative gradient ‖∇W‖/‖W‖ by depth: {'; '.join(parts)}."


def describe_residuals(nets: Nets) -> str:
    """The branches in words."""
    parts = [_span(name, [block.ratio for block in net.blocks]) for name, _, _, net in nets]
    responses = [_span(name, [_response(block) for block in net.blocks]) for name, _, _, net in nets]
    return f"‖F(x)‖ over what it is added to, by depth: {'; '.join(parts)}. Responses: {'; '.join(responses)}."


def describe_signal(readings: Sequence[SignalReading]) -> str:
    """The grid in words."""
    words: dict[str, list[str]] = {}
    for reading in readings:
        words.setdefault(reading.verdict, []).append(row_name(reading))
    steady = len(words.pop("steady", []))
    parts = [f"{verdict}: {'; '.join(names)}" for verdict, names in words.items()]
    return ". ".join([f"{steady} of {len(readings)} settings are steady before training", *parts]) + "."


def describe_lesion(nets: Nets) -> str:
    """The lesions in words."""
    parts = [
        f"{name}: whole {net.lesion.intact.error:.1%}, "
        + _span("without one block", [100 * change.error for change in net.lesion.dropped])
        for name, _, _, net in nets
        if net.lesion
    ]
    return f"Test error in percent with blocks left out. {'; '.join(parts)}."


def describe_identity(reading: IdentityReading) -> str:
    """Before and after in words."""
    return (
        f"Test error {reading.before.error:.1%} before. Trained on (epochs: {reading.epochs}) "
        f"{reading.deeper.error:.1%} with {reading.added} more blocks and {reading.same.error:.1%} without them."
    )


def _span(name: str, values: Sequence[Value]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return f"{name} has no finite value"
    return f"{name} from {known[0]:.3g} at the input to {known[-1]:.3g}, between {min(known):.3g} and {max(known):.3g}"


def _response(block: BlockReading) -> Value:
    return block.responses[-1] if block.responses else None


def _positive(value: Value) -> Value:
    return value or None


def _panels(number: int) -> "list[Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5 * number if number > 1 else 7.4, 3.0 if number > 1 else 2.6), layout="constrained")
    return list(figure.subplots(1, number, squeeze=False)[0])


def _line(axes: "Axes", values: Sequence[Value], name: str, colour: str, style: str) -> None:
    shown = [float("nan") if value is None else value for value in values]
    if all(value is None for value in values):
        return
    mark = "o" if len(values) <= MARKED and style != ":" else ""
    axes.plot(range(len(values)), shown, style, color=PALETTE[colour], label=name, lw=1.6, marker=mark, ms=3.2)


def _finish(axes: "Axes", title: str, below: str, *, log: bool = False) -> None:
    from matplotlib.ticker import MaxNLocator

    if log and axes.lines:
        axes.set_yscale("log")
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(below)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(fontsize=8)
