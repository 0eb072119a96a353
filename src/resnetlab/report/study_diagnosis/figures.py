"""The figures of a study's diagnosis, block by block, drawn from its record in the colours of the page."""

from collections.abc import Callable, Sequence
from itertools import cycle
from math import ceil
from statistics import fmean
from typing import TYPE_CHECKING

from resnetlab.records.study_diagnosis import RunResult, StudyDiagnosis
from resnetlab.report.figure import Drawing, plainly, render
from resnetlab.report.run.figures import PALETTE, RUN_STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 8
"""Conditions of the other axes that have a panel of their own; the tables have all."""
LONGEST = 36
"""Letters of a condition's name in a figure."""
PLAIN_LOOK = ("warm", "-")
LOOKS = [("accent", "-"), ("soft", "-"), ("ink", ":"), ("accent", ":"), ("warm", ":"), ("soft", ":")]
"""Colour and style of each value of the first axis; nets without shortcuts look as on the study's own page."""

Line = list[float | None]
ValuesOf = Callable[[RunResult], Line]


def draw_study_diagnosis(diagnosis: StudyDiagnosis) -> list[Drawing]:
    """Relative gradient, responses and lesions by block, as far as they were measured."""
    import matplotlib as mpl

    lines: list[tuple[str, str, ValuesOf, bool]] = [
        ("gradients", "‖∇W‖/‖W‖ after training", _gradients, True),
        ("responses", "Responses: standard deviation behind the last norm", _responses, False),
        ("lesion", f"{diagnosis.split.capitalize()} error without one block, %", _lesions, False),
    ]
    found = []
    with mpl.rc_context(RUN_STYLE):
        for name, title, values_of, log in lines:
            if any(values_of(run) for run in diagnosis.runs):
                figure = _draw(diagnosis, title, values_of, log=log)
                found.append(render(name, _describe(diagnosis, title, values_of), figure))
    return found


def _gradients(run: RunResult) -> Line:
    return [gradient.relative or None for gradient in run.net.gradients]


def _responses(run: RunResult) -> Line:
    return [block.responses[-1] if block.responses else None for block in run.net.blocks]


def _lesions(run: RunResult) -> Line:
    return [100 * change.error for change in run.net.lesion.dropped] if run.net.lesion else []


def _draw(diagnosis: StudyDiagnosis, title: str, values_of: ValuesOf, *, log: bool) -> "Figure":
    """A panel for each condition of the axes but the first, whose values are the lines: each run thin, their mean
    thick."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    panels = _panels(diagnosis)
    below = "stem, blocks, head" if log else "block that can be left out" if values_of is _lesions else "block"
    columns = min(2, len(panels))
    rows = ceil(len(panels) / columns)
    figure = Figure(figsize=(3.7 * columns + 0.4, 2.5 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    first, values = next(iter(diagnosis.axes.items()))
    shown = {run.values[first] for run in diagnosis.runs}
    looks = {value: look for value, look in _looks(values).items() if value in shown}
    for axes, others in zip(grid, panels, strict=False):
        for value, (colour, style) in looks.items():
            lines = [values_of(run) for run in diagnosis.runs if run.values == {first: value, **others}]
            _draw_lines(axes, [line for line in lines if line], PALETTE[colour], style)
        axes.set_title(plainly(_name(others), LONGEST), fontsize=10, loc="left", parse_math=False)
        axes.set_xlabel(below, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if log:
            axes.set_yscale("log")
    for axes in list(figure.axes)[len(panels) :]:
        axes.set_axis_off()
    if values_of is _lesions:
        figure.axes[0].set_ylim(0, 100)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    handles = [Line2D([], [], color=PALETTE[colour], ls=style, lw=2) for colour, style in looks.values()]
    names = [plainly(f"{first} {value}", LONGEST) for value in looks]
    for text in figure.legend(handles, names, loc="outside lower right", ncols=3, fontsize=8).get_texts():
        text.set_parse_math(False)
    return figure


def _looks(values: Sequence[str]) -> dict[str, tuple[str, str]]:
    others = [value for value in values if value not in ("plain", "none")]
    looks = dict(zip(others, cycle(LOOKS), strict=False))
    return {value: looks.get(value, PLAIN_LOOK) for value in values}


def _draw_lines(axes: "Axes", lines: Sequence[Line], colour: str, style: str) -> None:
    for line in lines:
        axes.plot(range(len(line)), [_known(value) for value in line], style, color=colour, lw=0.7, alpha=0.45)
    # Networks of one condition have as many blocks each, unless an axis of the other ones changes that.
    if len({len(line) for line in lines}) == 1:
        means = [_mean(column) for column in zip(*lines, strict=True)]
        axes.plot(range(len(means)), means, style, color=colour, lw=1.8)


def _panels(diagnosis: StudyDiagnosis) -> list[dict[str, str]]:
    first = next(iter(diagnosis.axes))
    found: list[dict[str, str]] = []
    for run in diagnosis.runs:
        others = {axis: value for axis, value in run.values.items() if axis != first}
        if others not in found:
            found.append(others)
    return found[:MOST_PANELS]


def _describe(diagnosis: StudyDiagnosis, title: str, values_of: ValuesOf) -> str:
    """The lines in words, for those who do not see them."""
    parts = []
    for condition in diagnosis.conditions:
        lines = [values_of(run) for run in diagnosis.runs if run.values == condition.values]
        known = [value for line in lines for value in line if value is not None]
        if known:
            span = f"from {min(known):.3g} to {max(known):.3g}, mean {fmean(known):.3g}"
            parts.append(f"{_name(condition.values)}: {span} (n = {len(lines)})")
    return f"{title}, by block. {'; '.join(parts)}."


def _name(values: dict[str, str]) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in values.items()) or "all runs"


def _known(value: float | None) -> float:
    return float("nan") if value is None else value


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else float("nan")
