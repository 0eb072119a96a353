"""The page on which two conditions of a study stand side by side: one HTML file with its program and all it shows.

Its script draws what ``explore_data`` gives; no statistic is made there but medians and ranges of the runs shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from resnetlab.core.errors import printable
from resnetlab.core.files import atomic_write
from resnetlab.records.gradients import BlockGradient
from resnetlab.records.run import EpochRecord
from resnetlab.records.study import Condition, StudyRecord, StudyRun, in_words
from resnetlab.report.figure import plainly
from resnetlab.report.page import render_program
from resnetlab.report.study.figures import LONGEST
from resnetlab.report.study.tables import runs_of

EXPLORE, TEMPLATE, SCRIPT = "explore.html", "study/explore.html.jinja", Path(__file__).with_name("explore.js")
POINTS, LEAST_POINTS, ALL_POINTS = 120, 20, 72_000
"""Points of a curve: at most, at least where there are more, and of one curve of every run together. With them the page
of 400 runs stays below 3 MB, whatever their depth and epochs."""
DIGITS = 3
"""Significant digits of a curve: what lies nearer is one pixel."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One picture: ``lines`` over the epochs, the steps or the blocks, by their names in the data.

    ``axis`` is what stands at the vertical axis; ``log`` its scale, ``dots`` a figure of every run at its last epoch.
    """

    name: str
    title: str
    said: str
    axis: str
    over: Literal["epochs", "steps", "blocks"]
    lines: dict[str, str]
    log: bool = False
    dots: str | None = None


LOSS = Chart(
    name="loss",
    title="Loss",
    said="Mean cross-entropy of the steps of each epoch, in training mode, on a log scale.",
    axis="loss, nats",
    over="epochs",
    lines={"loss": "loss"},
    log=True,
)
BLOCKS = Chart(
    name="blocks",
    title="Gradients by depth",
    said="‖∇W‖/‖W‖ of the stem, every block and the head for the first batch, at the start of training (dashed) and "
    "at its end.",
    axis="‖∇W‖/‖W‖",
    over="blocks",
    lines={"end": "at the end", "start": "at the start"},
    log=True,
)
ENDS = Chart(
    name="ends",
    title="Gradients over the steps",
    said="‖∇W‖/‖W‖ of the first block and of the last one (dashed) at the start, after 1, 2, 4, 8 … steps and at the "
    "end.",
    axis="‖∇W‖/‖W‖",
    over="steps",
    lines={"first": "first block", "last": "last block"},
    log=True,
)
MOMENTS = {
    "growth": (
        "Growth over the steps",
        "Growth of ‖∇W‖/‖W‖ from the last block to the first, in orders of magnitude: above 0 the gradients grow on "
        "their way back.",
        "orders of magnitude",
        False,
    ),
    "correlation": (
        "Alike gradients of neighbours",
        "Cosine between ∂L/∂x of an image and of its neighbour at the first block's input: 0 for white noise.",
        "cosine",
        False,
    ),
    "agreement": (
        "Agreement of half batches",
        "Cosine between the gradients of the two halves of a batch, over all weights.",
        "cosine",
        False,
    ),
    "change": ("Change of a step", "‖W′ − W‖/‖W‖ of the last step, over all weights.", "‖ΔW‖/‖W‖", True),
    "largest_change": ("Largest change of a block", "The largest ‖W′ − W‖/‖W‖ of a block.", "‖ΔW‖/‖W‖", True),
    "rank": ("Rank", "Effective rank of the last block's output over a batch, less its mean.", "rank", False),
}
"""Title, explanation, vertical axis and log scale of what is traced. What has no entry is drawn by its own name."""


def write_explore(study: StudyRecord, folder: Path) -> Path:
    """Write ``explore.html`` into ``folder``; its path."""
    atomic_write(folder / EXPLORE, render_explore(study))
    return folder / EXPLORE


def render_explore(study: StudyRecord) -> str:
    """The page as HTML."""
    charts = charts_of(study)
    return render_program(
        TEMPLATE,
        "report",
        explore_data(study, charts),
        [SCRIPT],
        study=study,
        axes=_axes(study, shortened=False),
        charts=charts,
        titles=[(chart.name, chart.title) for chart in charts],
        counts=any(condition.trained for condition in study.conditions),
        thinned=_points(study) if _longest(study) > _points(study) else None,
    )


def charts_of(study: StudyRecord) -> list[Chart]:
    """The pictures for which some run has a number."""
    moments = [moment for run in study.runs for moment in run.record.gradient_trace]
    charts = [_error_chart(study), LOSS, BLOCKS]
    if any(moment.first is not None or moment.last is not None for moment in moments):
        charts.append(ENDS)
    traced = [part.name for part in fields(moments[0]) if part.name not in ("step", "first", "last")] if moments else []
    for name in traced:
        if any(getattr(moment, name) is not None for moment in moments):
            plain = name.replace("_", " ")
            title, said, axis, log = MOMENTS.get(name, (plain.capitalize(), f"{plain} over the steps.", plain, False))
            charts.append(
                Chart(name=name, title=title, said=said, axis=axis, over="steps", lines={name: plain}, log=log)
            )
    return charts


def explore_data(study: StudyRecord, charts: Sequence[Chart]) -> dict[str, Any]:
    """What the script draws: axes, charts, the view to begin with, and every run of every condition in few digits.

    The points of a curve stand in the order of ``epochs``, ``steps`` or ``blocks`` of its condition; None stands for
    what a run has not, or what is no finite number. Errors are in percent.
    """
    axes = _axes(study, shortened=True)
    return {
        "axes": axes,
        "charts": [asdict(chart) for chart in charts],
        **_first_view(study),
        "conditions": [_condition(study, one, charts) for one in study.conditions],
    }


def _error_chart(study: StudyRecord) -> Chart:
    """Training error by epoch: its running mean, or in records without one that of evaluations."""
    said = "in training mode: mean of the steps of each epoch" if _has_running(study) else "in eval mode, by epoch"
    return Chart(
        name="error",
        title="Training error",
        said=f"Training error {said}. The dot is that after the last epoch, in eval mode.",
        axis="training error, %",
        over="epochs",
        lines={"error": "training error"},
        dots="train",
    )


def _has_running(study: StudyRecord) -> bool:
    return any(epoch.running_error is not None for run in study.runs for epoch in run.record.history)


def _axes(study: StudyRecord, *, shortened: bool) -> list[dict[str, Any]]:
    """Each axis with its name and values in the record (``name``, ``values``) and as people read them."""
    found = []
    for axis, values in study.axes.items():
        words = [next(iter(in_words(study.axes, {axis: value}).items())) for value in values]
        shown = [(_shown(head, shortened), _shown(word, shortened)) for head, word in words]
        found.append({"name": axis, "values": list(values), "word": shown[0][0], "words": [word for _, word in shown]})
    return found


def _shown(text: str, shortened: bool) -> str:
    return plainly(printable(text), LONGEST) if shortened else text


def _first_view(study: StudyRecord) -> dict[str, Any]:
    """Which axis is ``compared`` unless another is asked for, the two conditions of the first ``view``, as the place of
    a value on each axis, and the axis ``along`` which the runs that trained are shown.

    Compared is the shortcut, from ``none`` to another, or else the first axis with two values; the deepest nets are
    shown. Where no run of these has ended yet, the first condition that has one stands beside the last.
    """
    names = list(study.axes)
    several = [name for name in names if len(study.axes[name]) > 1] or names
    compared = "shortcut" if "shortcut" in several else several[0]
    others = [name for name in several if name != compared] or [compared]
    first = {name: _deepest(study.axes[name]) if name == "depth" else 0 for name in names}
    values = study.axes[compared]
    start = values.index("none") if compared == "shortcut" and "none" in values else 0
    second = next((place for place in range(len(values)) if place != start), start)
    view = [list((first | {compared: place}).values()) for place in (start, second)]
    ended = [_place(study, condition) for condition in study.conditions]
    return {
        "compared": names.index(compared),
        "view": [place if place in ended else other for place, other in zip(view, (ended[0], ended[-1]), strict=True)],
        "along": names.index("depth" if "depth" in several else others[0]),
    }


def _deepest(values: Sequence[str]) -> int:
    return max(range(len(values)), key=lambda place: int(values[place]))


def _condition(study: StudyRecord, condition: Condition, charts: Sequence[Chart]) -> dict[str, Any]:
    """One condition: its ``place`` on every axis, its counts, what its curves stand over, and its runs."""
    runs, most = runs_of(study, condition), _points(study)
    epochs = _spread(sorted({epoch.epoch for run in runs for epoch in run.record.history}), most)
    steps = _spread(sorted({moment.step for run in runs for moment in run.record.gradient_trace}), most)
    names = _blocks(runs)
    places = _spread(range(len(names)), most)
    running, traced = _has_running(study), [key for chart in charts if chart.over == "steps" for key in chart.lines]
    return {
        "place": _place(study, condition),
        "trained": asdict(condition.trained) if condition.trained else None,
        "untrained": condition.untrained,
        "epochs": epochs,
        "steps": steps,
        "blocks": places,
        "names": [names[place] for place in places],
        "runs": [
            {
                **_ended(run),
                "epochs": _epoch_curves(run, epochs, running),
                "steps": _step_curves(run, steps, traced),
                "blocks": {
                    "start": _block_curve(run.record.gradients_start, names, places),
                    "end": _block_curve(run.record.gradients_end, names, places),
                },
            }
            for run in runs
        ],
    }


def _place(study: StudyRecord, condition: Condition) -> list[int]:
    return [values.index(condition.values[axis]) for axis, values in study.axes.items()]


def _ended(run: StudyRun) -> dict[str, Any]:
    """The figures of a run after its last epoch, errors in percent, and the growth of its gradients."""
    final = run.record.final
    return {
        "seed": run.seed,
        "train": _rounded(100 * final.trained.error, 6) if final else None,
        "test": _rounded(100 * final.reported.error, 6) if final else None,
        "loss": _rounded(final.trained.loss, 6) if final else None,
        "growth": [_rounded(run.flow_start.growth), _rounded(run.flow_end.growth)],
    }


def _epoch_curves(run: StudyRun, epochs: Sequence[int], running: bool) -> dict[str, Any]:
    known = {epoch.epoch: epoch for epoch in run.record.history}
    return {
        "error": [_rounded(_error(known.get(number), running)) for number in epochs],
        "loss": [_rounded(known[number].running_loss) if number in known else None for number in epochs],
    }


def _error(epoch: EpochRecord | None, running: bool) -> float | None:
    """Training error in percent, the running one or that of an evaluation; None where it was not measured."""
    if epoch is None:
        return None
    error = epoch.running_error if running else epoch.train.error if epoch.train else None
    return None if error is None else 100 * error


def _step_curves(run: StudyRun, steps: Sequence[int], names: Iterable[str]) -> dict[str, Any]:
    known = {moment.step: moment for moment in run.record.gradient_trace}
    return {name: [_rounded(getattr(known.get(step), name, None)) for step in steps] for name in names}


def _block_curve(
    gradients: Sequence[BlockGradient], names: Sequence[str], places: Sequence[int]
) -> list[float | int | None]:
    known: Mapping[str, float | None] = {gradient.block: gradient.relative for gradient in gradients}
    return [_rounded(known.get(names[place])) for place in places]


def _blocks(runs: Sequence[StudyRun]) -> list[str]:
    """The stem, the blocks and the head of the networks of a condition."""
    found = [gradients for run in runs for gradients in (run.record.gradients_start, run.record.gradients_end)]
    return [gradient.block for gradient in max(found, key=len)]


def _points(study: StudyRecord) -> int:
    return max(LEAST_POINTS, min(POINTS, ALL_POINTS // len(study.runs)))


def _longest(study: StudyRecord) -> int:
    return max(max(len(run.record.history), len(run.record.gradients_start)) for run in study.runs)


def _spread(items: Sequence[int], most: int) -> list[int]:
    """At most so many of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[place] for place in sorted({round(k * (len(items) - 1) / (most - 1)) for k in range(most)})]


def _rounded(value: float | None, digits: int = DIGITS) -> float | int | None:
    """The value in so many significant digits, as short as JSON has it; None for what is no finite number."""
    if value is None or not isfinite(value):
        return None
    found = float(f"{value:.{digits}g}")
    return int(found) if found.is_integer() and abs(found) < 1e6 else found
