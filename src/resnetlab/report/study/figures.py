"""The figures of a study, drawn from its record: over depth where it asks about degradation, else by condition."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import TYPE_CHECKING

from resnetlab.records.gradients import BlockGradient
from resnetlab.records.study import Condition, StudyRecord, StudyRun, in_words
from resnetlab.report.figure import STYLE, Drawing, plainly, render
from resnetlab.report.study.tables import named, net_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAIN, RESIDUAL = "#c2512f", ("#1f6f9e", "#5b8c3a", "#7a5aa6", "#8a6d3b", "#3a8c86")
OTHERS = ("#d99a2b", "#8f2d56", "#4d4d4d", "#b86b9d", "#2a6f6b", "#6b4f2a", "#a3a832", "#e07b91", "#3d4f8a")
"""Colours of plain nets of further settings."""
MANY = 6
"""Lines of a figure, at most; more lie on one another, and each condition gets a row instead."""
LONGEST = 60
"""Letters of a condition's name in a figure."""
LINES = "Training error after the last epoch against depth: each kind's mean as a line, each seed as a dot."
ROWS = "Training and test error after the last epoch, a row for each condition: its mean as a bar, each seed as a dot."


def draw_figures(study: StudyRecord) -> list[Drawing]:
    """Training error, learning curves and gradients over depth; of other studies the errors of every condition."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        if 1 <= len(study.verdicts) <= MANY:
            first = render("training-error", LINES, draw_training_error(study))
        else:
            first = render("errors", ROWS, draw_errors(study))
        if not study.verdicts:
            return [first]
        return [
            first,
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


def draw_errors(study: StudyRecord) -> "Figure":
    """Training and test error in percent, a row for each condition."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.0, 1.4 + 0.3 * len(study.conditions)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = [row_name(study, condition) for condition in study.conditions]
    for axes, title in zip(panels, ("training error %", "test error %"), strict=True):
        for row, condition in enumerate(study.conditions):
            mean = condition.train_error if title.startswith("training") else condition.test_error
            if mean:
                axes.barh(row, 100 * mean.mean, color=RESIDUAL[0], alpha=0.25)
            for run in study.runs:
                final = run.record.final
                if run.values == condition.values and final:
                    error = final.trained.error if title.startswith("training") else final.reported.error
                    axes.plot(100 * error, row, "o", color=RESIDUAL[0], ms=5, alpha=0.7, mew=0, clip_on=False)
        axes.set_xlabel(title)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    panels[0].set_yticks(range(len(names)), [plainly(name, LONGEST) for name in names], parse_math=False)
    panels[0].invert_yaxis()
    return figure


def row_name(study: StudyRecord, condition: Condition) -> str:
    """The condition in few letters: the axes of several values, ``init`` for ``options.init`` where no other axis ends
    so."""
    varied = [axis for axis, values in study.axes.items() if len(values) > 1] or list(study.axes)
    words = in_words(study.axes, {axis: condition.values[axis] for axis in varied})
    ends = Counter(axis.rpartition(".")[2] for axis in words)
    short = {axis: axis.rpartition(".")[2] for axis in words}
    return named({end if ends[end] == 1 else axis: words[axis] for axis, end in short.items()})


def draw_training_error(study: StudyRecord) -> "Figure":
    """Training error in percent over depth, a line for each verdict."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for name, colour, values in _lines(study):
        known = sorted(
            (int(one.values["depth"]), 100 * one.train_error.mean)
            for one in study.conditions
            if one.train_error and values.items() <= one.values.items()
        )
        # Lines that lie on one another differ in width, so that both are seen.
        width = 4.5 if colour == PLAIN else 1.8
        axes.plot(
            *zip(*known, strict=True) if known else ([], []), color=colour, lw=width, label=f"{name}, mean", zorder=3
        )
        for run in study.runs:
            final = run.record.final
            if final and final.train and values.items() <= run.values.items():
                depth, error = int(run.values["depth"]), 100 * final.train.error
                axes.plot(depth, error, "o", color=colour, ms=6, alpha=0.6, mew=0, clip_on=False, zorder=4)
    axes.plot([], [], "o", color="#808080", ms=6, alpha=0.6, mew=0, label="each run")
    depths = _depths(study)
    axes.set_xscale("log")
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("depth in weight layers, log scale")
    axes.set_ylabel("training error, %")
    for text in axes.legend().get_texts():
        text.set_parse_math(False)
    return figure


def draw_learning_curves(study: StudyRecord) -> "Figure":
    """Error in percent over epochs: one panel a depth, one pair of lines a run."""

    def draw(axes: "Axes", run: StudyRun, colour: str) -> None:
        history = run.record.history
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

    def draw(choose: Callable[[StudyRun], list[BlockGradient]]) -> Callable[["Axes", StudyRun, str], None]:
        def lines(axes: "Axes", run: StudyRun, colour: str) -> None:
            values = [gradient.relative or float("nan") for gradient in choose(run)]
            axes.plot(range(len(values)), values, color=colour, lw=1.3)
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
    rows: dict[str, Callable[["Axes", StudyRun, str], None]],
    styles: dict[str, str] | None = None,
) -> "Figure":
    """A grid of axes, a column for each depth, with every run drawn in its column by the function of each row.

    ``styles`` are those that the legend explains beside the colours of the lines.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    depths, lines = _depths(study), list(_lines(study))
    figure = Figure(figsize=(max(4.2, 2.9 * len(depths)), 2.6 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), len(depths), sharey="row", squeeze=False)
    for axes, depth in zip(grid[0], depths, strict=True):
        axes.set_title(f"depth {depth}", fontsize=10)
    for row, (label, draw) in zip(grid, rows.items(), strict=True):
        row[0].set_ylabel(label)
        for axes, depth in zip(row, depths, strict=True):
            for run in study.runs:
                if int(run.values["depth"]) == depth:
                    draw(axes, run, next(c for _, c, values in lines if values.items() <= run.values.items()))
    handles = [Line2D([], [], color=colour, lw=2, label=name) for name, colour, _ in lines]
    handles += [Line2D([], [], color="#606060", label=label, ls=style) for label, style in (styles or {}).items()]
    legend = figure.legend(handles=handles, loc="outside upper right", ncols=min(4, len(handles)))
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _lines(study: StudyRecord) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Of every verdict its name, its colour, and the values of the axes beside depth."""
    colours = cycle(RESIDUAL)
    plain = cycle((PLAIN, *OTHERS))
    for verdict in study.verdicts:
        name = net_words(verdict).replace(" nets", "", 1)
        yield plainly(name, LONGEST), next(plain if verdict.values["shortcut"] == "none" else colours), verdict.values


def _depths(study: StudyRecord) -> list[int]:
    return sorted({int(run.values["depth"]) for run in study.runs})
