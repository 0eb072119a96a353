"""The page of a diagnosis: one HTML file that holds everything it shows, asks nothing of the network and runs no
script."""

from pathlib import Path

from resnetlab.core.files import atomic_write
from resnetlab.records.diagnosis import Diagnosis
from resnetlab.report.diagnosis.figures import draw_diagnosis_figures
from resnetlab.report.diagnosis.survey_figures import draw_cam_sheets
from resnetlab.report.diagnosis.tables import WORDS, block_table, diagnosis_tables
from resnetlab.report.page import flatten, inline_svg, render_template
from resnetlab.report.run.figures import Curves
from resnetlab.report.run.page import PAGE, follow_page, shorten

TEMPLATE = "diagnosis/page.html.jinja"


def write_diagnosis_report(diagnosis: Diagnosis, folder: Path) -> Path:
    """Write ``report.html`` into ``folder``; its path. Raises ``DataError`` where an image of the record is none."""
    atomic_write(folder / PAGE, render_diagnosis_page(diagnosis, draw_diagnosis_figures(diagnosis)))
    return folder / PAGE


def render_diagnosis_page(diagnosis: Diagnosis, drawings: list[Curves]) -> str:
    """The page as HTML. The drawings hold no text from outside; the sheets of images do, as pixels."""
    from markupsafe import Markup

    return render_template(
        TEMPLATE,
        diagnosis=diagnosis,
        title=diagnosis_title(diagnosis),
        words=WORDS,
        tables=diagnosis_tables(diagnosis),
        singles=block_table(diagnosis.net.lesion) if diagnosis.net.lesion else None,
        figures={drawing.name: drawing for drawing in drawings},
        svg={drawing.name: Markup(follow_page(inline_svg(drawing.name, drawing.svg))) for drawing in drawings},
        sheets=draw_cam_sheets(diagnosis),
        data=flatten(shorten(diagnosis.data)),
        environment=flatten(diagnosis.environment),
    )


def diagnosis_title(diagnosis: Diagnosis) -> str:
    """The network and the data that it was asked on."""
    return f"{diagnosis.net.label}, on {diagnosis.data.get('source', 'unknown data')}"


def verdict_lines(diagnosis: Diagnosis) -> list[str]:
    """Each part with its verdict, a line each."""
    return [f"{WORDS[finding.part]}: {finding.verdict}" for finding in diagnosis.findings]
