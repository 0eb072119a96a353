"""The result of a run as lines and rows of text."""

from collections.abc import Sequence
from math import ceil
from statistics import median
from typing import Any

from resnetlab.records.run import EpochRecord, Examination, RunRecord, best_epoch
from resnetlab.report.table import Table, plain

PAIRS = 12
"""Confusions that are shown."""
ROWS = 400
"""Epochs that the table of a long run has, evenly spread."""


def best_of(record: RunRecord) -> EpochRecord:
    """The best epoch by what the run chose it by. Raises ``ValueError`` for a run without an epoch."""
    return best_epoch(record.history, by=str(_training(record).get("best_by", "test_error")))


def run_title(record: RunRecord) -> str:
    """The network and its data."""
    return f"{record.model} on {record.data.get('source', 'unknown data')}"


def run_verdict(record: RunRecord) -> list[str]:
    """What came of the run, a sentence each: the result, the best epoch, and how it ended if not as planned."""
    planned, done = _training(record).get("epochs"), len(record.history)
    lines = []
    if record.final:
        test = record.final.test
        lines.append(
            f"{1 - test.error:.2%} of {test.n:,} test images right after {_counted(done, 'epoch')} "
            f"(error {test.error:.2%}, loss {plain(test.loss, 4)})"
        )
    if record.status == "diverged":
        lines.append(f"Diverged: {record.message}")
    elif isinstance(planned, int) and done < planned:
        lines.append(f"Ended after {done} of {planned} epochs" + (f": {record.message}" if record.message else ""))
    elif record.message:
        lines.append(record.message)
    if record.history:
        best = best_of(record)
        if record.final is best:
            lines.append("The last epoch is the best one")
        else:
            lines.append(
                f"Best epoch: {best.epoch}, with {1 - best.test.error:.2%} of {best.test.n:,} right; it was chosen by "
                "the test images, so its figure flatters"
            )
    else:
        lines.append("No epoch was completed")
    return lines


def key_figures(record: RunRecord, examination: Examination | None) -> list[tuple[str, str]]:
    """The figures that stand out, each with what it is."""
    found: list[tuple[str, str]] = []
    if record.final:
        test = record.final.test
        found += [(f"{1 - test.error:.2%}", f"test accuracy, n = {test.n:,}"), (plain(test.loss, 4), "test loss, nats")]
    if examination and examination.top5_accuracy is not None:
        found.append((f"{examination.top5_accuracy:.2%}", "top-5 accuracy"))
    if examination and examination.calibration_error is not None:
        found.append((f"{examination.calibration_error:.2%}", "expected calibration error"))
    found += [(_short(record.parameters), "parameters"), (_short(record.multiply_adds), "multiply-adds an image")]
    speed = images_per_second(record)
    if speed is not None:
        found.append((f"{speed:,.0f}", "training images a second"))
    return [*found, (duration(record.seconds), "for the whole run")]


def confused_pairs(examination: Examination) -> Table:
    """Which class was taken for which other, the most frequent first."""
    wrong = [(count, true, predicted) for true, predicted, count in examination.confusion if true != predicted]
    wrong.sort(key=lambda entry: (-entry[0], entry[1], entry[2]))
    names = examination.classes
    return Table(
        caption=f"Most confused: {min(len(wrong), PAIRS)} of {_counted(len(wrong), 'pair')} that occur",
        heads=("true class", "taken for", "images", "of the class"),
        rows=[
            (names[true], names[predicted], f"{count:,}", f"{count / examination.scores[true].n:.1%}")
            for count, true, predicted in wrong[:PAIRS]
        ],
    )


def class_table(examination: Examination) -> Table:
    """Every class with the share of it that was found, the lowest first."""
    order = sorted(range(len(examination.classes)), key=lambda k: _recall(examination, k))
    return Table(
        caption="Recall: the share of a class that was found. Precision: the share of what was taken for it that is it",
        heads=("class", "images", "recall", "precision"),
        rows=[
            (
                examination.classes[k],
                f"{examination.scores[k].n:,}",
                _share(examination.scores[k].recall),
                _share(examination.scores[k].precision),
            )
            for k in order
        ],
    )


def epoch_table(history: Sequence[EpochRecord]) -> Table:
    """Every epoch; of a long run evenly spread ones, the last among them."""
    stride = max(1, ceil(len(history) / ROWS))
    shown = [epoch for place, epoch in enumerate(history, start=1) if (len(history) - place) % stride == 0]
    heads = (
        "epoch",
        "rate",
        "running loss",
        "error %",
        "training loss",
        "error %",
        "test loss",
        "error %",
        "images/s",
        "s",
    )
    return Table(
        caption="Every epoch" if stride == 1 else f"Every {stride}th epoch",
        heads=heads,
        rows=[
            (
                str(epoch.epoch),
                f"{epoch.learning_rate:.4g}",
                plain(epoch.running_loss, 4),
                _percent(epoch.running_error),
                plain(epoch.train.loss, 4) if epoch.train else "–",
                _percent(epoch.train.error if epoch.train else None),
                plain(epoch.test.loss, 4),
                _percent(epoch.test.error),
                "–" if epoch.images_per_second is None else f"{epoch.images_per_second:,.0f}",
                f"{epoch.seconds:.1f}",
            )
            for epoch in shown
        ],
    )


def speed_lines(record: RunRecord) -> dict[str, str]:
    """What the run took, by name; the medians do not count a slow start."""
    speed = images_per_second(record)
    lines = {"whole run": duration(record.seconds)}
    if record.history:
        lines["an epoch with its evaluation, median"] = f"{median(e.seconds for e in record.history):.2f} s"
    if speed is not None:
        lines["training images a second, median"] = f"{speed:,.0f}"
    return lines


def images_per_second(record: RunRecord) -> float | None:
    """The median speed of training over the epochs, evaluation not counted; None where it was not measured."""
    known = [epoch.images_per_second for epoch in record.history if epoch.images_per_second is not None]
    return median(known) if known else None


def duration(seconds: float) -> str:
    """A time in the two units that tell it: ``12.3 s``, ``4 min 5 s``, ``7 h 31 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _training(record: RunRecord) -> dict[str, Any]:
    training = record.recipe.get("training")
    return training if isinstance(training, dict) else {}


def _recall(examination: Examination, k: int) -> tuple[float, int]:
    recall = examination.scores[k].recall
    return (2.0 if recall is None else recall, k)


def _short(count: int) -> str:
    for factor, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return str(count)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
