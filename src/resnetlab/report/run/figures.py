"""The curves of a run, drawn from its record in the colours of the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resnetlab.records.gradients import GradientMoment
from resnetlab.records.run import EpochRecord, RunRecord
from resnetlab.report.figure import STYLE, to_svg
from resnetlab.report.run.tables import MOMENTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = {
    "ink": "#1c2430",
    "soft": "#5b6676",
    "line": "#dde2e8",
    "paper": "#ffffff",
    "accent": "#1f6f9e",
    "warm": "#c2512f",
}
"""The page's colours by the names of its variables, so that the drawings in it can follow it into the dark."""
RUN_STYLE: dict[Any, Any] = STYLE | {
    "text.color": PALETTE["ink"],
    "axes.labelcolor": PALETTE["ink"],
    "axes.edgecolor": PALETTE["soft"],
    "xtick.color": PALETTE["soft"],
    "ytick.color": PALETTE["soft"],
    "grid.color": PALETTE["line"],
    "axes.facecolor": PALETTE["paper"],
    "figure.facecolor": PALETTE["paper"],
}
MARKED = 40
"""Up to this many epochs, each has a dot."""

Line = tuple[str, str, str, Callable[[EpochRecord], float | None]]
LOSS: list[Line] = [
    ("test", "accent", "-", lambda epoch: epoch.test.loss if epoch.test else None),
    ("validation", "ink", "-", lambda epoch: epoch.validation.loss if epoch.validation else None),
    ("training", "warm", "-", lambda epoch: epoch.train.loss if epoch.train else None),
    ("training, running", "soft", ":", lambda epoch: epoch.running_loss),
]
ERROR: list[Line] = [
    ("test", "accent", "-", lambda epoch: 100 * epoch.test.error if epoch.test else None),
    ("validation", "ink", "-", lambda epoch: 100 * epoch.validation.error if epoch.validation else None),
    ("training", "warm", "-", lambda epoch: 100 * epoch.train.error if epoch.train else None),
    ("training, running", "soft", ":", lambda e: None if e.running_error is None else 100 * e.running_error),
]
RATE: list[Line] = [("learning rate", "accent", "-", lambda epoch: epoch.learning_rate)]
GROWTH = "Growth of ‖∇W‖/‖W‖, orders of magnitude"
SPEED: list[Line] = [("images a second", "accent", "-", lambda epoch: epoch.images_per_second)]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """One drawing of the page, with its description in words."""

    name: str
    description: str
    svg: bytes


def draw_run_figures(record: RunRecord) -> list[Curves]:
    """Loss, error, learning rate and speed by epoch, and by step the growth of the gradients and what else was measured
    of a moment; of these what is known.

    Loss and error have a line for every split that was evaluated.
    """
    import matplotlib as mpl

    grown = [one for one in record.gradient_trace if one.growth is not None]
    with mpl.rc_context(RUN_STYLE):
        figures = [
            ("loss", "Loss, mean cross-entropy in nats", LOSS),
            ("error", "Error in percent", ERROR),
            ("learning-rate", "Learning rate at the end of the epoch", RATE),
            ("speed", "Training images per second, without evaluation", SPEED),
        ]
        known = [(name, label, present(lines, record.history)) for name, label, lines in figures]
        curves = [
            Curves(
                name=name,
                description=describe(label, lines, record.history),
                svg=to_svg(draw_curves(record, label, lines)),
            )
            for name, label, lines in known
            if lines
        ]
        if len(grown) > 1:
            svg = to_svg(draw_moments(grown, "growth", GROWTH))
            curves.append(Curves(name="growth", description=describe_moments(grown, "growth", GROWTH, "+.2f"), svg=svg))
        for name, (words, scale) in MOMENTS.items():
            having = [one for one in record.gradient_trace if getattr(one, name) is not None]
            if len(having) > 1:
                svg = to_svg(draw_moments(having, name, words, scale))
                described = describe_moments(having, name, words, ".3g")
                curves.append(Curves(name=name.replace("_", "-"), description=described, svg=svg))
        return curves


def present(lines: Sequence[Line], history: Sequence[EpochRecord]) -> list[Line]:
    """The lines that have a value in some epoch."""
    return [line for line in lines if any(line[3](epoch) is not None for epoch in history)]


def draw_curves(record: RunRecord, label: str, lines: Sequence[Line]) -> "Figure":
    """Each line over the epochs in which its value is known, with the best epoch marked."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    for name, colour, style, value in lines:
        points = _points(value, record.history)
        axes.plot(
            [epoch for epoch, _ in points],
            [y for _, y in points],
            style,
            color=PALETTE[colour],
            label=name,
            lw=1.3 if style == ":" else 1.8,
            # Test, where validation chose, was evaluated once or twice: points without a line.
            marker="o" if len(points) <= MARKED and style != ":" else "",
            ms=3.2,
        )
    if len(lines) > 1:
        _mark_best(axes, record)
        axes.legend(fontsize=9)
    top = max(y for _, _, _, value in lines for _, y in _points(value, record.history))
    axes.set_ylim(0, 1.06 * top or 1.0)
    axes.set_title(label, fontsize=10, loc="left")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def describe(label: str, lines: Sequence[Line], history: Sequence[EpochRecord]) -> str:
    """The curves in words, for those who do not see them."""
    parts = []
    for name, _, _, value in lines:
        points = _points(value, history)
        (first, start), (last, end) = points[0], points[-1]
        low, high = min(y for _, y in points), max(y for _, y in points)
        parts.append(
            f"{name} from {start:.4g} in epoch {first} to {end:.4g} in epoch {last}, between {low:.4g} and {high:.4g}"
        )
    return f"{label}, by epoch: {'; '.join(parts)}."


def draw_moments(trace: Sequence[GradientMoment], name: str, words: str, scale: str = "linear") -> "Figure":
    """The field ``name`` of the moments over the steps of the run, on a log scale from step 1 on.

    Every moment of ``trace`` has that field. Of a linear scale the zero is marked.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    steps, values = [one.step for one in trace], [getattr(one, name) for one in trace]
    if scale == "linear":
        axes.axhline(0, color=PALETTE["soft"], lw=0.9, ls="--", zorder=1)
    axes.plot(steps, values, "-o", color=PALETTE["accent"], lw=1.8, ms=3.2)
    if scale == "log" and all(values):
        axes.set_yscale("log")
    # So step 0 has a place too, a power of ten before step 1.
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks([0, *(10**power for power in range(len(str(steps[-1]))))])
    axes.set_xticklabels([str(tick) for tick in axes.get_xticks().astype(int)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(words[0].upper() + words[1:], fontsize=10, loc="left")
    axes.set_xlabel("step of the optimizer, log scale")
    return figure


def describe_moments(trace: Sequence[GradientMoment], name: str, words: str, form: str) -> str:
    """That field over the steps in words."""
    moments = (f"{getattr(one, name):{form}} at step {one.step:,}" for one in trace)
    return f"{words[0].upper() + words[1:]}, by step: {', '.join(moments)}."


def _points(value: Callable[[EpochRecord], float | None], history: Sequence[EpochRecord]) -> list[tuple[int, float]]:
    return [(epoch.epoch, y) for epoch in history if (y := value(epoch)) is not None]


def _mark_best(axes: "Axes", record: RunRecord) -> None:
    if record.best is None:
        return
    axes.axvline(record.best.epoch, color=PALETTE["soft"], lw=0.9, ls="--", label="best epoch", zorder=1)
