"""The result of a run as lines and rows of text."""

from collections.abc import Sequence
from math import ceil
from statistics import median
from typing import Any

from resnetlab.records.gradients import GradientMoment
from resnetlab.records.run import ClassificationReport, EpochRecord, Metrics, RunRecord
from resnetlab.report.table import Table, plain, points, share, short

PAIRS = 12
"""Confusions that are shown."""
ROWS = 400
"""Rows of the table of a long run, its epochs evenly spaced."""
MOMENTS = {
    "correlation": ("gradients of neighbours, cosine", "linear"),
    "agreement": ("gradients of half batches, cosine", "linear"),
    "change": ("‖ΔW‖/‖W‖ of the step", "log"),
    "largest_change": ("the same, largest of a block", "log"),
    "rank": ("effective rank of features", "linear"),
}
"""What is measured at a moment of a run that traces all, with its words and the scale on which it is drawn."""
SPLITS = {"train": "training", "validation": "validation", "test": "test"}
"""The splits by name, with the word for each in a table."""


def run_title(record: RunRecord) -> str:
    """The network and its data."""
    return f"{record.model} on {record.data.get('source', 'unknown data')}"


def run_verdict(record: RunRecord) -> list[str]:
    """The outcome of the run, a sentence each: the result, the best epoch, and how it ended if not as planned."""
    planned, done = _training(record).get("epochs"), len(record.history)
    lines = []
    if record.final:
        metrics, split = record.final.reported, record.final.reported_split
        lines.append(
            f"{_accuracy(metrics)} {split} images after {_counted(done, 'epoch')} "
            f"(error {metrics.error:.2%}, loss {plain(metrics.loss, 4)})"
        )
    if record.status == "diverged":
        lines.append(f"Diverged: {record.message}")
    elif isinstance(planned, int) and done < planned:
        lines.append(f"Ended after {done} of {planned} epochs" + (f": {record.message}" if record.message else ""))
    elif record.message:
        lines.append(record.message)
    return [*lines, best_sentence(record), *changes(record)]


def changes(record: RunRecord) -> list[str]:
    """Which settings were changed while the run was under way, a sentence each."""
    return [f"Settings {text}: no one recipe gives this result" for text in record.changes]


def best_sentence(record: RunRecord) -> str:
    """Which epoch ``best/`` holds, what chose it, and its figures on the split that chose and on test."""
    best, by = record.best, record.chosen_by
    if best is None:
        return "No epoch was completed"
    if by is None:
        return "Nothing chose among the epochs: the last one is kept as the best"
    if record.final is best:
        text = f"The last epoch is also the best one on the {by} images"
    else:
        shown = {name: metrics for name, metrics in _measured(best).items() if name != "train"}
        figures = [f"{_accuracy(metrics)} {name} images" for name, metrics in shown.items()]
        text = f"Best epoch: {best.epoch}, chosen on the {by} images, with {' and '.join(figures)}"
    # What chose cannot report: its best figure is the best of several.
    return text if best.reported_split != by else f"{text}; the same images chose it, so this figure is optimistic"


def key_figures(record: RunRecord, report: ClassificationReport | None) -> list[tuple[str, str]]:
    """The key figures, each with what it is."""
    found: list[tuple[str, str]] = []
    if record.final:
        metrics, split = record.final.reported, record.final.reported_split
        found += [
            (f"{1 - metrics.error:.2%}", f"{split} accuracy, n = {metrics.n:,}"),
            (plain(metrics.loss, 4), f"{split} loss, nats"),
        ]
    if report and report.top5_accuracy is not None:
        found.append((f"{report.top5_accuracy:.2%}", "top-5 accuracy"))
    if report and report.calibration_error is not None:
        found.append((f"{report.calibration_error:.2%}", "expected calibration error"))
    found += [(_short(record.parameters), "parameters"), (_short(record.multiply_adds), "multiply-adds per image")]
    speed = images_per_second(record)
    if speed is not None:
        found.append((f"{speed:,.0f}", "training images per second"))
    return [*found, (duration(record.seconds), "total time")]


def confused_pairs(report: ClassificationReport) -> Table:
    """Pairs of a true class and another that was predicted, the most frequent first."""
    wrong = [(count, true, predicted) for true, predicted, count in report.confusion if true != predicted]
    wrong.sort(key=lambda entry: (-entry[0], entry[1], entry[2]))
    names = report.classes
    return Table(
        caption=f"Most frequent confusions, with their share of the true class: {min(len(wrong), PAIRS)} of "
        f"{_counted(len(wrong), 'pair')}",
        heads=("true class", "predicted", "images", "share"),
        rows=[
            (names[true], names[predicted], f"{count:,}", f"{count / report.scores[true].n:.1%}")
            for count, true, predicted in wrong[:PAIRS]
        ],
    )


def class_table(report: ClassificationReport) -> Table:
    """Recall and precision of every class, the lowest recall first."""
    order = sorted(range(len(report.classes)), key=lambda k: _recall(report, k))
    return Table(
        caption="Recall: the share of a class that was predicted as it. Precision: the share of what was predicted as "
        "it that is right",
        heads=("class", "images", "recall", "precision"),
        rows=[
            (
                report.classes[k],
                f"{report.scores[k].n:,}",
                share(report.scores[k].recall),
                share(report.scores[k].precision),
            )
            for k in order
        ],
    )


def epoch_table(history: Sequence[EpochRecord]) -> Table:
    """Every epoch with its figures on each split that was evaluated; of a long run evenly spaced epochs, the last one
    among them."""
    stride = max(1, ceil(len(history) / ROWS))
    shown = [epoch for place, epoch in enumerate(history, start=1) if (len(history) - place) % stride == 0]
    splits = [name for name in SPLITS if any(name in _measured(epoch) for epoch in history)]
    return Table(
        caption="Every epoch" if stride == 1 else f"Every {stride}th epoch",
        heads=(
            "epoch",
            "rate",
            "running loss",
            "error %",
            *(head for name in splits for head in (f"{SPLITS[name]} loss", "error %")),
            "images/s",
            "s",
        ),
        rows=[
            (
                str(epoch.epoch),
                f"{epoch.learning_rate:.4g}",
                plain(epoch.running_loss, 4),
                points(epoch.running_error),
                *(text for name in splits for text in _loss_and_error(_measured(epoch).get(name))),
                "–" if epoch.images_per_second is None else f"{epoch.images_per_second:,.0f}",
                f"{epoch.seconds:.1f}",
            )
            for epoch in shown
        ],
    )


def moment_table(trace: Sequence[GradientMoment]) -> Table:
    """What was measured after so many steps; no row where the run traced the gradients alone."""
    return Table(
        caption="Measured after so many steps of the optimizer, on the first images of the run",
        heads=("step", *(words for words, _ in MOMENTS.values())),
        rows=[
            (f"{one.step:,}", *(short(getattr(one, name)) for name in MOMENTS))
            for one in trace
            if any(getattr(one, name) is not None for name in MOMENTS)
        ],
    )


def _measured(epoch: EpochRecord) -> dict[str, Metrics]:
    """The metrics of the splits that were evaluated after the epoch; of training images too."""
    found = {"train": epoch.train, "validation": epoch.validation, "test": epoch.test}
    return {name: metrics for name, metrics in found.items() if metrics is not None}


def _loss_and_error(metrics: Metrics | None) -> tuple[str, str]:
    return ("–", "–") if metrics is None else (plain(metrics.loss, 4), points(metrics.error))


def _accuracy(metrics: Metrics) -> str:
    return f"{1 - metrics.error:.2%} accuracy on {metrics.n:,}"


def speed_lines(record: RunRecord) -> dict[str, str]:
    """The time of the run, by name; medians leave a slow start out."""
    speed = images_per_second(record)
    lines = {"whole run": duration(record.seconds)}
    if record.history:
        lines["one epoch with its evaluation, median"] = f"{median(e.seconds for e in record.history):.2f} s"
    if speed is not None:
        lines["training images per second, median"] = f"{speed:,.0f}"
    return lines


def images_per_second(record: RunRecord) -> float | None:
    """The median speed of training over the epochs, evaluation not counted; None where it was not measured."""
    known = [epoch.images_per_second for epoch in record.history if epoch.images_per_second is not None]
    return median(known) if known else None


def duration(seconds: float) -> str:
    """A time in its two largest units: ``12.3 s``, ``4 min 5 s``, ``7 h 31 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _training(record: RunRecord) -> dict[str, Any]:
    training = record.recipe.get("training")
    return training if isinstance(training, dict) else {}


def _recall(report: ClassificationReport, k: int) -> tuple[float, int]:
    recall = report.scores[k].recall
    return (2.0 if recall is None else recall, k)


def _short(count: int) -> str:
    for factor, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return str(count)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
