"""The page of a diagnosis: one HTML file that holds everything it shows, asks nothing of the network and runs no
script."""

from base64 import b64encode
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from resnetlab.core.files import atomic_write
from resnetlab.records.diagnosis import Analysis, Diagnosis
from resnetlab.report.figure import Drawing
from resnetlab.report.page import flatten, inline_svg, render_template
from resnetlab.report.run.page import PAGE, follow_page, shorten
from resnetlab.report.table import Table

TEMPLATE = "diagnosis/page.html.jinja"
ON_BATCH: tuple[Analysis, ...] = ("gradients", "residuals", "signal", "shattering", "rank", "step", "paths")
"""Analyses that are measured on one batch of training images; the sentences of all others say their own n."""


class AnalysisReport(Protocol):
    """What the file of an analysis has in this package."""

    TITLE: str

    def tables(self, diagnosis: Diagnosis) -> list[Table]:
        """Its numbers; the first table is shown in the terminal as well."""

    def draw(self, diagnosis: Diagnosis) -> list[Drawing]:
        """Its figures, as SVG for lines and as PNG for images."""


def report_of(name: Analysis) -> AnalysisReport:
    """The report of the analysis of that name, which is loaded with the first page that shows it."""
    return cast("AnalysisReport", import_module(f"resnetlab.report.diagnosis.{name}"))


Drawings = dict[Analysis, list[Drawing]]


def write_diagnosis_report(diagnosis: Diagnosis, folder: Path) -> Path:
    """Write ``report.html`` into ``folder``; its path. Raises ``DataError`` where an image of the record is none."""
    atomic_write(folder / PAGE, render_diagnosis_page(diagnosis, draw_diagnosis(diagnosis)))
    return folder / PAGE


def draw_diagnosis(diagnosis: Diagnosis) -> Drawings:
    """The figures of every analysis. Raises ``DataError`` where an image of the record is none."""
    names = [finding.analysis for finding in diagnosis.findings]
    return {name: report_of(name).draw(diagnosis) for name in names}


def render_diagnosis_page(diagnosis: Diagnosis, drawings: Drawings) -> str:
    """The page as HTML. SVGs go in as they are: matplotlib has escaped their texts."""
    from markupsafe import Markup

    names = [finding.analysis for finding in diagnosis.findings]
    drawn = [drawing for name in names for drawing in drawings.get(name, [])]
    vector = {drawing.name: drawing for drawing in drawn if drawing.svg}
    return render_template(
        TEMPLATE,
        diagnosis=diagnosis,
        title=diagnosis_title(diagnosis),
        titles={name: report_of(name).TITLE for name in names},
        on_batch=[report_of(name).TITLE for name in names if name in ON_BATCH],
        tables={name: report_of(name).tables(diagnosis) for name in names},
        figures=vector,
        svg={name: Markup(follow_page(inline_svg(name, drawing.svg))) for name, drawing in vector.items()},
        sheets=[(one.name, one.description, b64encode(one.png).decode()) for one in drawn if not one.svg],
        data=flatten(shorten(diagnosis.data)),
        environment=flatten(diagnosis.environment),
    )


def diagnosis_title(diagnosis: Diagnosis) -> str:
    """The network and the data that it was asked on."""
    return f"{diagnosis.net.label}, on {diagnosis.data.get('source', 'unknown data')}"


def verdict_lines(diagnosis: Diagnosis) -> list[str]:
    """Each analysis with its verdict, a line each."""
    return [f"{report_of(finding.analysis).TITLE}: {finding.verdict}" for finding in diagnosis.findings]
