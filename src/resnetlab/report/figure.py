"""The figures of a study, drawn from its record with matplotlib and returned as SVG and PNG."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from resnetlab.records.gradients import BlockGradient
from resnetlab.records.study import StudyRecord, StudyRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"plain": "#c2512f", "residual": "#1f6f9e"}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    # Without a fixed salt the ids in an SVG differ from one drawing to the next.
    "svg.hashsalt": "resnetlab",
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure as a file name without suffix, what it shows in words, and its two renderings."""

    name: str
    description: str
    svg: bytes
    png: bytes


def draw_figures(study: StudyRecord) -> list[Drawing]:
    """Training error by depth, learning curves of every run, and gradients by depth."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        return [
            render(
                "training-error",
                "Training error after the last epoch against depth: each kind's mean as a line, each seed as a dot.",
                draw_training_error(study),
            ),
            render(
                "learning-curves",
                "Training error (solid) and test error (dotted) of every run over the epochs, one panel a depth.",
                draw_learning_curves(study),
            ),
            render(
                "gradients",
                "Relative gradient of every block, from the input on, before and after training, one panel a depth.",
                draw_gradients(study),
            ),
        ]


def draw_training_error(study: StudyRecord) -> "Figure":
    """Training error in percent over depth, for each kind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for kind in _kinds(study):
        cells = [cell for cell in study.cells if cell.kind == kind and cell.train_error]
        means = [100 * cell.train_error.mean for cell in cells if cell.train_error]
        # Lines that lie on one another differ in width, so that both are seen.
        width = 4.5 if kind == "plain" else 1.8
        axes.plot([cell.depth for cell in cells], means, color=COLOURS[kind], lw=width, label=f"{kind}, mean", zorder=3)
        for run in study.runs:
            final = run.record.final
            if run.kind == kind and final and final.train:
                error = 100 * final.train.error
                axes.plot(run.depth, error, "o", color=COLOURS[kind], ms=6, alpha=0.6, mew=0, clip_on=False, zorder=4)
    axes.plot([], [], "o", color="#808080", ms=6, alpha=0.6, mew=0, label="each run")
    depths = sorted({cell.depth for cell in study.cells})
    axes.set_xscale("log")
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("depth in weight layers, log scale")
    axes.set_ylabel("training error, %")
    axes.legend()
    return figure


def draw_learning_curves(study: StudyRecord) -> "Figure":
    """Error in percent over epochs: one panel a depth, one pair of lines a run."""

    def draw(axes: "Axes", run: StudyRun) -> None:
        history, colour = run.record.history, COLOURS[run.kind]
        trained = [(epoch.epoch, 100 * epoch.train.error) for epoch in history if epoch.train]
        axes.plot([number for number, _ in trained], [error for _, error in trained], color=colour, lw=1.5)
        axes.plot([e.epoch for e in history], [100 * e.reported.error for e in history], ":", color=colour, lw=1.2)
        axes.set_xlabel("epoch")

    figure = _panels(study, {"error, %": draw}, {"training": "-", "test": ":"})
    # Only now: a limit that is set stops the scale from growing with the lines.
    figure.axes[0].set_ylim(bottom=0)
    return figure


def draw_gradients(study: StudyRecord) -> "Figure":
    """‖∇W‖/‖W‖ over blocks on a log scale: before training above, after training below, one column a depth."""

    def draw(choose: Callable[[StudyRun], list[BlockGradient]]) -> Callable[["Axes", StudyRun], None]:
        def lines(axes: "Axes", run: StudyRun) -> None:
            values = [gradient.relative or float("nan") for gradient in choose(run)]
            axes.plot(range(len(values)), values, color=COLOURS[run.kind], lw=1.3)
            axes.set_yscale("log")
            axes.set_xlabel("stem, blocks, head")

        return lines

    return _panels(
        study,
        {
            "‖∇W‖/‖W‖ before training": draw(lambda run: run.record.gradients_start),
            "‖∇W‖/‖W‖ after training": draw(lambda run: run.record.gradients_end),
        },
    )


def _panels(
    study: StudyRecord,
    rows: dict[str, Callable[["Axes", StudyRun], None]],
    lines: dict[str, str] | None = None,
) -> "Figure":
    """A grid of axes, a column for each depth, with every run drawn in its column by the function of each row.

    ``lines`` are the styles that the legend explains beside the colours of the kinds.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    depths = sorted({run.depth for run in study.runs})
    figure = Figure(figsize=(max(4.2, 2.9 * len(depths)), 2.6 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), len(depths), sharey="row", squeeze=False)
    for axes, depth in zip(grid[0], depths, strict=True):
        axes.set_title(f"depth {depth}", fontsize=10)
    for row, (label, draw) in zip(grid, rows.items(), strict=True):
        row[0].set_ylabel(label)
        for axes, depth in zip(row, depths, strict=True):
            for run in study.runs:
                if run.depth == depth:
                    draw(axes, run)
    handles = [Line2D([], [], color=COLOURS[kind], lw=2, label=kind) for kind in _kinds(study)]
    handles += [Line2D([], [], color="#606060", label=label, ls=style) for label, style in (lines or {}).items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure


def _kinds(study: StudyRecord) -> list[str]:
    return list(dict.fromkeys(run.kind for run in study.runs))


def render(name: str, description: str, figure: "Figure") -> Drawing:
    """The figure as SVG and PNG, equal whenever it is drawn again in the same style."""
    png = BytesIO()
    with _any_letters():
        figure.savefig(png, format="png", dpi=150)
    return Drawing(name=name, description=description, svg=to_svg(figure), png=png.getvalue())


def to_svg(figure: "Figure") -> bytes:
    """The figure as SVG, without the date that would make two drawings of one record differ."""
    svg = BytesIO()
    with _any_letters():
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def plainly(text: str, longest: int) -> str:
    """The text for a figure: no longer than that, and without letters that cannot be shown, which no SVG may hold."""
    shown = "".join(letter if letter.isprintable() else "�" for letter in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


@contextmanager
def _any_letters() -> Iterator[None]:
    """Draw a name of letters that the font lacks without a warning: boxes in a PNG, the viewer's letters in an SVG."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
