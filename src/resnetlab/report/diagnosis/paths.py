"""The lengths of the paths that carry a network's gradient."""

from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import Diagnosis, PathResult
from resnetlab.report.diagnosis.panels import drawing
from resnetlab.report.figure import Drawing
from resnetlab.report.table import Table, share, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Length of paths"
BLUE, RED, GREY = "#1f6f9e", "#c2512f", "#5b6676"


def tables(diagnosis: Diagnosis) -> list[Table]:
    """Every length with the gradient that one path of it carries, and all of them."""
    found = diagnosis.net.paths
    assert found is not None
    rows: list[tuple[str, ...]] = [
        (str(item.length), str(item.paths), short(item.log_magnitude), share(item.share)) for item in found.lengths
    ]
    caption = f"Paths of {diagnosis.net.label}, by the branches on them, n = {found.n} images"
    heads = ("branches", "paths measured", "log₁₀ ‖∂L/∂x‖ of one", "share of all")
    return [Table(caption=caption, heads=heads, rows=rows)]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """The gradient through one path, and through all of a length, over the length: Veit et al. 2016, Figure 6."""
    found = diagnosis.net.paths
    before = diagnosis.initial.paths if diagnosis.initial else None
    assert found is not None
    return [drawing("paths", describe_paths(found, before), lambda: path_figure(found, before))]


def describe_paths(result: PathResult, before: PathResult | None = None) -> str:
    """The figure in words, for those who do not see it."""
    base = f"Gradient at the input by the length of the path, in branches of {result.blocks} blocks: through one path, "
    base += "and the share of all paths of a length."
    if result.mean is None:
        return f"{base} No gradient arrives, or none that is finite."
    range_ = f"{result.low} to {result.high} branches."
    words = f"{base} Mean length {result.mean:.1f}; 95 % of the gradient goes through {range_}"
    if before and before.mean is not None:
        words += f" Before training: mean length {before.mean:.1f}, {before.low} to {before.high} branches."
    return words


def path_figure(result: PathResult, before: PathResult | None = None) -> "Figure":
    """Both panels in the style that is set; ``before`` is the same net before its training, dotted."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    single, whole = figure.subplots(1, 2)
    _draw_single(single, result, before)
    _draw_share(whole, result, before)
    for axes in (single, whole):
        axes.set_xlabel(f"branches on the path, of {result.blocks}")
        axes.set_xlim(-0.5, result.blocks + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def _draw_single(axes: "Axes", result: PathResult, before: PathResult | None) -> None:
    known = _logs(result)
    measured = [item.length for item in result.lengths if item.paths and item.length in known]
    axes.plot(list(known), list(known.values()), color=BLUE, lw=1.4, label="this net")
    axes.plot(measured, [known[length] for length in measured], "o", color=BLUE, ms=3.5, mew=0)
    if before:
        earlier = _logs(before)
        axes.plot(list(earlier), list(earlier.values()), ":", color=GREY, lw=1.4, label="before training")
        axes.legend(fontsize=9)
    axes.set_title("gradient through one path, mean", fontsize=10, loc="left")
    axes.set_ylabel("log₁₀ ‖∂L/∂x‖")


def _draw_share(axes: "Axes", result: PathResult, before: PathResult | None) -> None:
    shares = _shares(result)
    axes.bar(list(shares), list(shares.values()), color=BLUE, width=0.8)
    if result.mean is not None and result.low is not None and result.high is not None:
        axes.axvspan(result.low - 0.5, result.high + 0.5, color=BLUE, alpha=0.12, lw=0, label="95 % of it")
        axes.axvline(result.mean, color=RED, lw=1.4, label=f"mean, {result.mean:.1f}")
    if before:
        earlier = _shares(before)
        axes.plot(list(earlier), list(earlier.values()), ":", color=GREY, lw=1.4, label="before training")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9)
    axes.set_title("gradient through all paths of a length", fontsize=10, loc="left")
    axes.set_ylabel("share, %")


def _logs(result: PathResult) -> dict[int, float]:
    return {item.length: item.log_magnitude for item in result.lengths if item.log_magnitude is not None}


def _shares(result: PathResult) -> dict[int, float]:
    return {item.length: 100 * item.share for item in result.lengths if item.share is not None}
