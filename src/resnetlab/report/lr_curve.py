"""The figure of a learning-rate range test, drawn from its record."""

from typing import TYPE_CHECKING

from resnetlab.records.lr_curve import EXPLODED, LrCurve
from resnetlab.report.figure import STYLE, Drawing, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_rate_curve(curve: LrCurve) -> Drawing:
    """Loss over the learning rate, of every step and smoothed, with the rates that it suggests."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        return render(
            "lr",
            "Loss of each step (dots) and smoothed loss (line) against the learning rate, and the suggested rates.",
            _draw(curve),
        )


def _draw(curve: LrCurve) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(curve.rates, curve.losses, "o", color="#808080", ms=3, alpha=0.5, mew=0, label="each step")
    axes.plot(curve.rates, curve.smoothed, color="#1f6f9e", lw=1.8, label="smoothed")
    if curve.steepest is not None and curve.minimum is not None:
        axes.axvline(curve.steepest, color="#c2512f", lw=1.4, label=f"steepest fall, {curve.steepest:.2g}")
        axes.axvline(
            curve.minimum / 10, color="#c2512f", lw=1.4, ls=":", label=f"minimum / 10, {curve.minimum / 10:.2g}"
        )
    axes.set_xscale("log")
    # The steps of the explosion would press all others flat.
    axes.set_ylim(0, min(max(curve.losses), EXPLODED * min(curve.smoothed)) * 1.05)
    axes.set_xlabel("learning rate, log scale")
    axes.set_ylabel("training loss, nats")
    axes.legend()
    return figure
