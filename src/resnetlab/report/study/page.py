"""The page of a study: one HTML file that holds everything it shows and asks nothing of the network; beside it stands
the one on which two conditions are compared."""

from collections.abc import Iterable
from pathlib import Path

from resnetlab.core.files import atomic_write
from resnetlab.records.study import StudyRecord, axes_in_words
from resnetlab.report.figure import Drawing
from resnetlab.report.page import flatten, inline_svg, render_template
from resnetlab.report.run.page import follow_page
from resnetlab.report.study import tables
from resnetlab.report.study.explore import EXPLORE, write_explore
from resnetlab.report.study.figures import draw_figures
from resnetlab.report.study.tuning import edge_lines, tuning_table

PAGE, FIGURES, TEMPLATE = "report.html", "figures", "study/page.html.jinja"


def write_report(study: StudyRecord, folder: Path) -> Path:
    """Write ``report.html``, ``explore.html`` and each figure as ``figures/<name>.svg`` and ``.png``; the path of the
    first."""
    drawings = draw_figures(study)
    write_drawings(drawings, folder)
    write_explore(study, folder)
    atomic_write(folder / PAGE, render_page(study, drawings))
    return folder / PAGE


def write_drawings(drawings: Iterable[Drawing], folder: Path) -> None:
    """Each as ``figures/<name>.svg`` and ``.png``."""
    for drawing in drawings:
        atomic_write(folder / FIGURES / f"{drawing.name}.svg", drawing.svg)
        atomic_write(folder / FIGURES / f"{drawing.name}.png", drawing.png)


def render_page(study: StudyRecord, drawings: list[Drawing]) -> str:
    """The page as HTML. The drawings, whose texts matplotlib has escaped, go in as they are."""
    from markupsafe import Markup

    return render_template(
        TEMPLATE,
        study=study,
        explore=EXPLORE,
        axes=list(axes_in_words(study.axes)),
        heading=tables.heading(study),
        answers=tables.answer_lines(study),
        errors=tables.error_table(study),
        tuning=tuning_table(study),
        edges=edge_lines(study),
        contrasts=tables.contrast_tables(study),
        gradients=tables.gradient_table(study),
        traces=tables.trace_tables(study),
        sizes=tables.size_table(study),
        figures={drawing.name: drawing for drawing in drawings},
        svg={drawing.name: Markup(follow_page(inline_svg(drawing.name, drawing.svg))) for drawing in drawings},
        settings=flatten(study.settings),
        data=flatten(study.runs[0].record.data),
        environments=distinct(flatten(run.record.environment) for run in study.runs),
        seconds=sum(epoch.seconds for run in study.runs for epoch in run.record.history),
    )


def distinct(items: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Each different one of ``items`` once, in order: runs of one study may come from several machines."""
    found: list[dict[str, str]] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found
