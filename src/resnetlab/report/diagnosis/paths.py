"""The lengths of the paths that carry a network's gradient, drawn from their record."""

from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import PathReading
from resnetlab.report.figure import STYLE, Drawing, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREY = "#1f6f9e", "#c2512f", "#5b6676"


def draw_paths(reading: PathReading) -> Drawing:
    """The gradient through one path, and through all of a length, over the length: Veit et al. 2016, Figure 6."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        return render("paths", describe_paths(reading), path_figure(reading))


def describe_paths(reading: PathReading, before: PathReading | None = None) -> str:
    """The figure in words, for those who do not see it."""
    base = f"Gradient at the input by the number of branches on its way, of {reading.blocks} blocks: through one path, "
    base += "and the share that all paths of a length carry."
    if reading.mean is None:
        return f"{base} No gradient arrives, or none that is finite."
    range_ = f"{reading.low} to {reading.high} branches."
    words = f"{base} Mean length {reading.mean:.1f}; 95 % of the gradient takes {range_}"
    if before and before.mean is not None:
        words += f" Before training: mean length {before.mean:.1f}, {before.low} to {before.high} branches."
    return words


def path_figure(reading: PathReading, before: PathReading | None = None) -> "Figure":
    """Both panels in the style that is set; ``before`` is the same net before its training, dotted."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    single, whole = figure.subplots(1, 2)
    _draw_single(single, reading, before)
    _draw_share(whole, reading, before)
    for axes in (single, whole):
        axes.set_xlabel(f"branches on the path, of {reading.blocks}")
        axes.set_xlim(-0.5, reading.blocks + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def _draw_single(axes: "Axes", reading: PathReading, before: PathReading | None) -> None:
    known = _logs(reading)
    measured = [item.length for item in reading.lengths if item.paths and item.length in known]
    axes.plot(list(known), list(known.values()), color=BLUE, lw=1.4, label="this net")
    axes.plot(measured, [known[length] for length in measured], "o", color=BLUE, ms=3.5, mew=0)
    if before:
        earlier = _logs(before)
        axes.plot(list(earlier), list(earlier.values()), ":", color=GREY, lw=1.4, label="before training")
        axes.legend(fontsize=9)
    axes.set_title("gradient through one path, mean", fontsize=10, loc="left")
    axes.set_ylabel("log₁₀ ‖∂L/∂x‖")


def _draw_share(axes: "Axes", reading: PathReading, before: PathReading | None) -> None:
    shares = _shares(reading)
    axes.bar(list(shares), list(shares.values()), color=BLUE, width=0.8)
    if reading.mean is not None and reading.low is not None and reading.high is not None:
        axes.axvspan(reading.low - 0.5, reading.high + 0.5, color=BLUE, alpha=0.12, lw=0, label="95 % of it")
        axes.axvline(reading.mean, color=RED, lw=1.4, label=f"mean, {reading.mean:.1f}")
    if before:
        earlier = _shares(before)
        axes.plot(list(earlier), list(earlier.values()), ":", color=GREY, lw=1.4, label="before training")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9)
    axes.set_title("gradient through all paths of a length", fontsize=10, loc="left")
    axes.set_ylabel("share, %")


def _logs(reading: PathReading) -> dict[int, float]:
    return {item.length: item.log_magnitude for item in reading.lengths if item.log_magnitude is not None}


def _shares(reading: PathReading) -> dict[int, float]:
    return {item.length: 100 * item.share for item in reading.lengths if item.share is not None}
