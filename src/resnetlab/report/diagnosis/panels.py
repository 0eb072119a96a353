"""What the figures of several analyses share: the nets that are drawn, and panels of lines by depth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import Diagnosis, NetResult
from resnetlab.report.figure import Drawing, to_svg
from resnetlab.report.run.figures import MARKED, PALETTE, RUN_STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Value = float | None


@dataclass(frozen=True, kw_only=True)
class ShownNet:
    """A net of a diagnosis with the name, colour and style of its lines. Names from outside stay out of figures."""

    name: str
    colour: str
    style: str
    net: NetResult


def shown_nets(diagnosis: Diagnosis) -> list[ShownNet]:
    """The net and those that it is compared with."""
    nets = [
        ("this net", "accent", "-", diagnosis.net),
        ("this net, before training", "soft", ":", diagnosis.initial),
        ("plain", "warm", "-", diagnosis.plain),
    ]
    return [ShownNet(name=name, colour=colour, style=style, net=net) for name, colour, style, net in nets if net]


def drawing(name: str, words: str, draw: "Callable[[], Figure]") -> Drawing:
    """A figure of the page, drawn in its colours, with what it shows in words."""
    import matplotlib as mpl

    with mpl.rc_context(RUN_STYLE):
        return Drawing(name=name, description=words, svg=to_svg(draw()), png=b"")


def panels(number: int) -> "list[Axes]":
    """So many axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5 * number if number > 1 else 7.4, 3.0 if number > 1 else 2.6), layout="constrained")
    return list(figure.subplots(1, number, squeeze=False)[0])


def draw_line(axes: "Axes", values: Sequence[Value], shown: ShownNet) -> None:
    """The values by depth as a line, with gaps where there is no number; nothing where there is none at all."""
    if all(value is None for value in values):
        return
    heights = [float("nan") if value is None else value for value in values]
    mark = "o" if len(values) <= MARKED and shown.style != ":" else ""
    colour = PALETTE[shown.colour]
    axes.plot(range(len(values)), heights, shown.style, color=colour, label=shown.name, lw=1.6, marker=mark, ms=3.2)


def finish(axes: "Axes", title: str, below: str, *, log: bool = False) -> "Figure":
    """Title, labels and scales of one of the panels; their figure."""
    from matplotlib.ticker import MaxNLocator

    if log and axes.lines:
        axes.set_yscale("log")
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(below)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(fontsize=8)
    return axes.figure  # type: ignore[return-value]  # no subfigure


def positive(value: Value) -> Value:
    """The value for a log scale, which has no zero."""
    return value or None


def span(name: str, values: Sequence[Value]) -> str:
    """From where to where the values go, in words."""
    known = [value for value in values if value is not None]
    if not known:
        return f"{name} has no finite value"
    return f"{name} from {known[0]:.3g} at the input to {known[-1]:.3g}, between {min(known):.3g} and {max(known):.3g}"
