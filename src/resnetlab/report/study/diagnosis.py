"""A study's diagnosis, drawn from its record: tables, for the terminal and the page alike, figures, and the page."""

from collections.abc import Callable, Sequence
from itertools import cycle
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from resnetlab.core.files import atomic_write
from resnetlab.core.stats import Sample
from resnetlab.records.diagnosis import Analysis
from resnetlab.records.study import Difference
from resnetlab.records.study_diagnosis import ConditionResult, Measure, RunResult, StudyDiagnosis
from resnetlab.report.figure import Drawing, plainly, render
from resnetlab.report.page import flatten, inline_svg, render_template
from resnetlab.report.run.figures import PALETTE, RUN_STYLE
from resnetlab.report.run.page import follow_page, shorten
from resnetlab.report.study.page import PAGE, write_drawings
from resnetlab.report.study.tables import judgement
from resnetlab.report.table import Table, interval, p_value, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIGITS = {1: 3, 100: 2}
"""Decimals of a number, and of a percentage."""


CAPTIONS: dict[Analysis, str] = {
    "gradients": "Growth of ‖∇W‖/‖W‖ from the last block to the first, in orders of magnitude",
    "residuals": "What the blocks of the trained networks add",
    "lesion": "{split} error of the trained networks, and its rise in points when blocks are left out or exchanged",
}


def measure_tables(diagnosis: StudyDiagnosis) -> list[Table]:
    """For each analysis its measures in every condition; n stands beside a measure that not all of its runs have."""
    tables = []
    for analysis in dict.fromkeys(measure.analysis for measure in diagnosis.measures):
        ours = [measure for measure in diagnosis.measures if measure.analysis == analysis]
        subject = CAPTIONS[analysis].format(split=diagnosis.split.capitalize())
        tables.append(
            Table(
                caption=f"{subject}: mean ± standard deviation over n seeds",
                heads=(*diagnosis.axes, "n", *(measure.words for measure in ours)),
                rows=[
                    (
                        *condition.values.values(),
                        str(condition.n),
                        *(over_seeds(condition.measures[measure.name], measure, condition.n) for measure in ours),
                    )
                    for condition in diagnosis.conditions
                ],
            )
        )
    return tables


def verdict_table(diagnosis: StudyDiagnosis) -> Table:
    """How many runs of every condition have which verdict."""
    analyses = list(dict.fromkeys(name for condition in diagnosis.conditions for name in condition.verdicts))
    return Table(
        caption="Verdicts on the trained networks, with the number of runs",
        heads=(*diagnosis.axes, *analyses),
        rows=[
            (*condition.values.values(), *(_counts(condition, name) for name in analyses))
            for condition in diagnosis.conditions
        ],
    )


def difference_tables(diagnosis: StudyDiagnosis) -> list[Table]:
    """For each axis that was compared: every measure of every value minus that of the first, paired by seed."""
    tables = []
    for axis, values in diagnosis.axes.items():
        ours = [contrast for contrast in diagnosis.contrasts if contrast.axis == axis]
        others = [name for name in diagnosis.axes if name != axis]
        rows = [
            (measure.words, *contrast.others.values(), contrast.value, *difference(found, measure))
            for measure in diagnosis.measures
            for contrast in ours
            for found in [contrast.differences[measure.name]]
        ]
        if rows:
            caption = (
                f"{axis}: minus {values[0]}, paired over n seeds: mean [Student's 95 %], p of t-test by Holm's rule "
                f"over {len(diagnosis.contrasts)}"
            )
            heads = ("measure", *others, axis, "n", "difference", "p", "")
            tables.append(Table(caption=caption, heads=heads, rows=rows))
    return tables


def over_seeds(values: Sample | None, measure: Measure, runs: int) -> str:
    """``mean ± standard deviation``, and n where it is not that of all ``runs``."""
    if values is None:
        return "–"
    digits = DIGITS[round(measure.factor)]
    std = "" if values.sd is None else f" ± {plain(measure.factor * values.sd, digits)}"
    return plain(measure.factor * values.mean, digits) + std + ("" if values.n == runs else f" (n = {values.n})")


def difference(found: Difference | None, measure: Measure) -> tuple[str, str, str, str]:
    """n, ``mean [low, high]``, p, and whether that is significant."""
    if found is None:
        return "0", "no seed has both", "–", ""
    text = interval(found.student, measure.factor, DIGITS[round(measure.factor)])
    p = "–" if found.adjusted is None else p_value(found.adjusted)
    return str(found.student.n), text, p, judgement(found)


def _counts(condition: ConditionResult, analysis: str) -> str:
    return ", ".join(f"{verdict} {count}" for verdict, count in condition.verdicts.get(analysis, {}).items()) or "–"


def answer_lines(diagnosis: StudyDiagnosis) -> list[str]:
    """What the networks of every condition are like, in a sentence each."""
    return [
        f"{_place(condition)}: {'; '.join(_words(condition, diagnosis.measures))}."
        for condition in diagnosis.conditions
    ]


def _words(condition: ConditionResult, measures: list[Measure]) -> list[str]:
    told = {"response": "responses {}", "typical": "without one block the error rises by {} points in the median"}
    found = []
    for measure in measures:
        values = condition.measures[measure.name]
        if measure.name in told and values:
            found.append(told[measure.name].format(over_seeds(values, measure, condition.n)))
    for analysis in ("gradients", "lesion"):
        if analysis in condition.verdicts:
            found.append(f"{analysis}: {_counts(condition, analysis)}")
    return [*found, f"n = {condition.n}"]


def _place(condition: ConditionResult) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in condition.values.items())


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


TEMPLATE = "study/diagnosis.html.jinja"
PLACES = {
    "measures": "Measures",
    "differences": "Differences",
    "gradients": "Gradients by depth",
    "responses": "What the blocks add",
    "lesion": "Without one block",
    "again": "How to reproduce it",
}
"""The parts of the page, of which the page has those for which there is something to show."""


def write_study_diagnosis_report(diagnosis: StudyDiagnosis, folder: Path) -> Path:
    """Write ``report.html`` and each figure as ``figures/<name>.svg`` and ``.png``; the path of the page."""
    drawings = draw_study_diagnosis(diagnosis)
    write_drawings(drawings, folder)
    atomic_write(folder / PAGE, render_study_diagnosis(diagnosis, drawings))
    return folder / PAGE


def render_study_diagnosis(diagnosis: StudyDiagnosis, drawings: list[Drawing]) -> str:
    """The page as HTML. The drawings, whose texts matplotlib has escaped, go in as they are."""
    from markupsafe import Markup

    differences = difference_tables(diagnosis)
    shown = {"measures", "again", *(["differences"] if differences else []), *(drawing.name for drawing in drawings)}
    return render_template(
        TEMPLATE,
        diagnosis=diagnosis,
        answers=answer_lines(diagnosis),
        measures=measure_tables(diagnosis),
        verdicts=verdict_table(diagnosis),
        differences=differences,
        places=[(name, words) for name, words in PLACES.items() if name in shown],
        figures={drawing.name: drawing for drawing in drawings},
        svg={drawing.name: Markup(follow_page(inline_svg(drawing.name, drawing.svg))) for drawing in drawings},
        data=flatten(shorten(diagnosis.data)),
        environment=flatten(diagnosis.environment),
    )
