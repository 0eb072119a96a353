"""Loss surfaces as contour plots."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from resnetlab.records.diagnosis import Diagnosis, LandscapeResult
from resnetlab.report.diagnosis.panels import drawing
from resnetlab.report.figure import Drawing
from resnetlab.report.table import Table, share, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Loss surface"
LEVELS = 16
"""Lines of equal loss, evenly spread over its logarithm."""
DECADES = 4
"""Orders of magnitude below the largest loss where the lowest line lies at most: a loss near zero has no bottom."""


def tables(diagnosis: Diagnosis) -> list[Table]:
    """The loss of the net and on the square around it."""
    shown = [(net.model, net.landscape) for net in diagnosis.trained.values() if net.landscape]
    _, first = shown[0]
    caption = f"Loss surface, n = {first.n:,} training images, {first.side}² networks"
    heads = ("net", "centre", "by guessing", "lowest", "highest", "not finite", "flat", "convex")
    return [Table(caption=caption, heads=heads, rows=[(name, *_cells(found)) for name, found in shown])]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """Lines of equal loss around the net and its plain counterpart, side by side and at the same levels."""
    surfaces = {name: net.landscape for name, net in diagnosis.trained.items() if net.landscape}
    return [drawing("landscape", describe_landscapes(surfaces), lambda: landscape_figure(surfaces))]


def _cells(found: LandscapeResult) -> tuple[str, ...]:
    known = [loss for row in found.losses for loss in row if loss is not None]
    ends = (min(known), max(known)) if known else (None, None)
    missing = str(found.side**2 - len(known))
    return (*map(short, (found.centre, found.guess, *ends)), missing, share(found.flat), share(found.convex))


def describe_landscapes(results: Mapping[str, LandscapeResult]) -> str:
    """The surfaces in words, for those who do not see them."""

    def tell(name: str, result: LandscapeResult) -> str:
        known = [loss for row in result.losses for loss in row if loss is not None]
        centre = "no finite number" if result.centre is None else f"{result.centre:.3g}"
        span = f"from {min(known):.3g} to {max(known):.3g}" if known else "nowhere finite"
        missing = result.side**2 - len(known)
        return f"{name}: {centre} in the centre, {span} on the square" + (f", not finite at {missing}" * bool(missing))

    parts = "; ".join(tell(name, result) for name, result in results.items())
    return f"Loss along two random directions scaled filter by filter to the network's own norms. {parts}."


def landscape_figure(results: Mapping[str, LandscapeResult]) -> "Figure":
    """A panel for each network, in the style that is set."""
    from matplotlib.figure import Figure

    surfaces = {name: _logs(result) for name, result in results.items()}
    levels = _levels(list(surfaces.values()))
    figure = Figure(figsize=(max(4.8, 4.0 * len(surfaces) + 0.6), 3.9), layout="constrained")
    panels = figure.subplots(1, len(surfaces), sharey=True, squeeze=False)[0]
    for axes, (name, surface) in zip(panels, surfaces.items(), strict=True):
        _draw_one(axes, name, results[name], surface, levels)
    panels[0].set_ylabel("second direction")
    if len(levels):
        _add_scale(figure, list(panels), levels)
    return figure


def _draw_one(
    axes: "Axes", name: str, result: LandscapeResult, surface: "np.ma.MaskedArray", levels: np.ndarray
) -> None:
    axis = result.axis
    # Where there is no finite loss nothing is drawn, and the grey of the ground is seen.
    axes.set_facecolor("#d8d8d8")
    if len(levels):
        axes.contourf(axis, axis, surface, levels=levels, cmap="viridis_r", extend="both")
        axes.contour(
            axis, axis, surface, levels=levels, colors="#1c2430", linewidths=0.5, linestyles="solid", alpha=0.6
        )
    axes.plot(0, 0, "+", color="#c2512f", ms=10, mew=1.8)
    axes.grid(visible=False)
    axes.set_aspect("equal")
    axes.set_xlim(axis[0], axis[-1])
    axes.set_ylim(axis[0], axis[-1])
    axes.set_xlabel("first direction")
    centre = "not finite" if result.centre is None else f"{result.centre:.3g}"
    shares = [
        f"{what} {share:.0%}" for what, share in (("flat", result.flat), ("convex", result.convex)) if share is not None
    ]
    axes.set_title(name, fontsize=10, loc="left", parse_math=False)
    axes.text(
        0.02,
        0.02,
        "\n".join([f"centre {centre}, n = {result.n:,}", *shares]),
        transform=axes.transAxes,
        fontsize=8,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 2},
    )


def _add_scale(figure: "Figure", panels: list["Axes"], levels: np.ndarray) -> None:
    filled = panels[0].collections[0]
    bar = figure.colorbar(filled, ax=panels, shrink=0.9)
    shown = levels[:: max(1, LEVELS // 8)]
    bar.set_ticks(shown.tolist(), labels=[f"{loss:,.0f}" if 100 <= loss < 1e6 else f"{loss:.2g}" for loss in 10**shown])
    bar.set_label("loss, nats, log scale")


def _logs(result: LandscapeResult) -> "np.ma.MaskedArray":
    losses = np.array([[np.nan if loss is None else loss for loss in row] for row in result.losses])
    # A loss of exactly zero has no logarithm; it lies below every line.
    return np.ma.masked_invalid(np.log10(np.maximum(losses, np.finfo(float).tiny)))


def _levels(surfaces: list["np.ma.MaskedArray"]) -> np.ndarray:
    """Where the lines lie; none where no loss is finite."""
    known = np.concatenate([surface.compressed() for surface in surfaces])
    if not len(known):
        return known
    low, high = max(known.min(), known.max() - DECADES), known.max()
    # One loss everywhere: matplotlib wants levels that grow.
    return np.linspace(low, high if high > low else low + 1, LEVELS)
