"""The page of a study over axes: tables, one figure, and how to make it again."""

from pathlib import Path
from typing import TYPE_CHECKING

from resnetlab.core.files import atomic_write
from resnetlab.records.study import Comparison
from resnetlab.report.figure import STYLE, Drawing, plainly, render
from resnetlab.report.page import flatten, inline_svg, render_template
from resnetlab.report.run.page import follow_page
from resnetlab.report.study.comparison_tables import (
    answer_lines,
    combination_table,
    comparison_heading,
    contrast_tables,
    size_table,
)
from resnetlab.report.study.page import PAGE, distinct, write_drawings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = "study/comparison.html.jinja"
LONGEST = 60
"""Letters of a combination's name in the figure."""


def write_comparison(study: Comparison, folder: Path) -> Path:
    """Write ``report.html`` and the figure as ``figures/errors.svg`` and ``.png``; the path of the page."""
    drawing = draw_errors(study)
    write_drawings([drawing], folder)
    atomic_write(folder / PAGE, render_comparison(study, drawing))
    return folder / PAGE


def render_comparison(study: Comparison, drawing: Drawing) -> str:
    """The page as HTML. The drawing, whose texts matplotlib has escaped, goes in as it is."""
    from markupsafe import Markup

    return render_template(
        TEMPLATE,
        study=study,
        heading=comparison_heading(study),
        answers=answer_lines(study),
        combinations=combination_table(study),
        contrasts=contrast_tables(study),
        sizes=size_table(study),
        figures={drawing.name: drawing},
        svg={drawing.name: Markup(follow_page(inline_svg(drawing.name, drawing.svg)))},
        settings=flatten(study.settings),
        data=flatten(study.runs[0].record.data),
        environments=distinct(flatten(run.record.environment) for run in study.runs),
        seconds=sum(epoch.seconds for run in study.runs for epoch in run.record.history),
    )


def draw_errors(study: Comparison) -> Drawing:
    """Training and test error of every run as dots, and of every combination its mean as a bar."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        return render(
            "errors",
            "Training and test error after the last epoch, a row for each combination: its mean as a bar, each seed "
            "as a dot.",
            _plot_errors(study),
        )


def _plot_errors(study: Comparison) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.0, 1.4 + 0.3 * len(study.combinations)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    names = [", ".join(f"{axis} {value}" for axis, value in cell.values.items()) for cell in study.combinations]
    for axes, title in zip(panels, ("training error %", "test error %"), strict=True):
        for row, cell in enumerate(study.combinations):
            mean = cell.train_error if title.startswith("training") else cell.test_error
            if mean:
                axes.barh(row, 100 * mean.mean, color="#1f6f9e", alpha=0.25)
            for run in study.runs:
                final = run.record.final
                if run.values == cell.values and final:
                    error = final.trained.error if title.startswith("training") else final.reported.error
                    axes.plot(100 * error, row, "o", color="#1f6f9e", ms=5, alpha=0.7, mew=0, clip_on=False)
        axes.set_xlabel(title)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    panels[0].set_yticks(range(len(names)), [plainly(name, LONGEST) for name in names], parse_math=False)
    panels[0].invert_yaxis()
    return figure
