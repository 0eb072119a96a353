"""The page of a run: one HTML file that holds everything it shows, asks nothing of the network and runs no script."""

from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetlab.core.errors import DataError
from resnetlab.core.files import atomic_write
from resnetlab.core.serialize import read_record
from resnetlab.records.run import REPORT, ClassificationReport, RunRecord
from resnetlab.report.page import flatten, inline_svg, render_template
from resnetlab.report.run.figures import PALETTE, Curves, draw_run_figures
from resnetlab.report.run.tables import (
    class_table,
    confused_pairs,
    epoch_table,
    key_figures,
    moment_table,
    run_title,
    run_verdict,
    speed_lines,
)

PAGE, TEMPLATE = "report.html", "run/page.html.jinja"
MATRIX = 20
"""Classes up to which the whole confusion matrix is shown."""
ITEMS = 12
"""Entries of a list in the data's description that are shown."""
SMALL = 64
"""Side in pixels below which an image is enlarged without smoothing."""

GREYS = (("soft", "#000000"), ("line", "#e4e4e4"), ("soft", "#808080"), ("soft", "#606060"))
"""Which of the page's colours stands for a colour of the drawings that are made for paper."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image with a wrong prediction, as the page shows it; ``small`` where single pixels should show.

    ``name`` is that of its file, or its number in the split.
    """

    source: str
    small: bool
    true: str
    predicted: str
    probability: str
    name: str

    @property
    def words(self) -> str:
        return f"{self.name}: {self.true}, predicted as {self.predicted} with {self.probability}"


@dataclass(frozen=True, kw_only=True)
class HeatCell:
    """One count of the confusion matrix, with its share of the row from 0 to 1, which shades it."""

    count: int
    share: float
    right: bool


def write_run_report(record: RunRecord, report: ClassificationReport | None, command: str, folder: Path) -> Path:
    """Write ``report.html`` into ``folder``; its path. ``command`` reproduces the run (``command_of``).

    Raises ``DataError`` for an image of the report that is not a PNG.
    """
    atomic_write(folder / PAGE, render_run_page(record, report, command, draw_run_figures(record)))
    return folder / PAGE


def read_report(folder: Path) -> ClassificationReport | None:
    """The classification report of the run in ``folder``; None where it has none (it diverged, or is older).

    Raises ``DataError`` where it is damaged.
    """
    path = folder / REPORT
    return read_record(ClassificationReport, path) if path.is_file() else None


def render_run_page(
    record: RunRecord, report: ClassificationReport | None, command: str, drawings: list[Curves]
) -> str:
    """The page as HTML. The drawings hold no text from outside."""
    from markupsafe import Markup

    return render_template(
        TEMPLATE,
        title=run_title(record),
        record=record,
        verdict=run_verdict(record),
        key_figures=key_figures(record, report),
        figures={drawing.name: drawing for drawing in drawings},
        svg={drawing.name: Markup(follow_page(inline_svg(drawing.name, drawing.svg))) for drawing in drawings},
        epochs=epoch_table(record.history),
        moments=moment_table(record.gradient_trace),
        report=report,
        matrix=heat_rows(report) if report and len(report.classes) <= MATRIX else None,
        pairs=confused_pairs(report) if report else None,
        errors=shown_errors(report) if report else [],
        scores=class_table(report) if report else None,
        speed=speed_lines(record),
        command=command,
        settings=flatten(record.recipe),
        data=flatten(shorten(record.data)),
        environment=flatten(record.environment),
    )


def follow_page(svg: str) -> str:
    """The drawing with the variables of the page in place of its colours: those of the page in light mode, or the
    black and greys of drawings that are files too."""
    for name, colour in (*PALETTE.items(), *GREYS):
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def heat_rows(report: ClassificationReport) -> list[tuple[str, int, list[HeatCell]]]:
    """The rows of the confusion matrix: the true class, its images, and a cell for every predicted class."""
    counts = {(true, predicted): count for true, predicted, count in report.confusion}
    names = report.classes
    return [
        (
            name,
            score.n,
            [
                HeatCell(count=count, share=count / score.n if score.n else 0.0, right=true == predicted)
                for predicted in range(len(names))
                for count in (counts.get((true, predicted), 0),)
            ],
        )
        for true, (name, score) in enumerate(zip(names, report.scores, strict=True))
    ]


def shown_errors(report: ClassificationReport) -> list[Shown]:
    """The most confident errors as the page shows them."""
    return [
        Shown(
            source=f"data:image/png;base64,{mistake.image}",
            small=png_side(mistake.image) < SMALL,
            true=report.classes[mistake.true],
            predicted=report.classes[mistake.predicted],
            probability=f"{mistake.probability:.1%}",
            name=mistake.name or f"{report.split} image {mistake.sample}",
        )
        for mistake in report.most_confident_errors
    ]


def png_side(image: str) -> int:
    """The longer side of a PNG in base64, from its header. Raises ``DataError`` where it is none."""
    try:
        head = b64decode(image, validate=True)[:24]
    except ValueError:
        head = b""
    if len(head) < 24 or not head.startswith(b"\x89PNG\r\n\x1a\n"):
        raise DataError("an image of the report is no PNG in base64; the file was damaged or is not ours")
    return max(int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))


def shorten(data: dict[str, Any]) -> dict[str, Any]:
    """The description of the data with long lists cut: nobody reads a thousand names of classes."""
    return {
        key: [*value[:ITEMS], f"… ({len(value):,} in all)"] if isinstance(value, list) and len(value) > ITEMS else value
        for key, value in data.items()
    }
