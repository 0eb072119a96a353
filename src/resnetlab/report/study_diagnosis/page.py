"""The page of a study's diagnosis: tables, figures, rules, and how to reproduce it."""

from pathlib import Path

from resnetlab.core.files import atomic_write
from resnetlab.records.study_diagnosis import StudyDiagnosis
from resnetlab.report.figure import Drawing
from resnetlab.report.page import flatten, inline_svg, render_template
from resnetlab.report.run.page import follow_page, shorten
from resnetlab.report.study.page import PAGE, write_drawings
from resnetlab.report.study_diagnosis.figures import draw_study_diagnosis
from resnetlab.report.study_diagnosis.tables import answer_lines, difference_tables, measure_tables, verdict_table

TEMPLATE = "study_diagnosis/page.html.jinja"
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
