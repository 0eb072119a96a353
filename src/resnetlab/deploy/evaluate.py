"""Evaluate a trained network on any set with its classes: accuracy with its interval, per class, and each answer."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from resnetlab.core.errors import ConfigError, DataError, listed, printable, require_choice
from resnetlab.core.files import atomic_stream
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import ImageData, Images, SplitName
from resnetlab.data.folder import list_folder
from resnetlab.data.loader import Loader
from resnetlab.data.sources import AS_IT_IS, ENCODED, load_data
from resnetlab.data.splits import parse_choice
from resnetlab.deploy.engines import Predictor
from resnetlab.deploy.predict import Item, Settings, predict_batches
from resnetlab.deploy.preprocessing import predictions
from resnetlab.deploy.rows import DIGITS, NO_ANSWER, WRITERS, Row, batched
from resnetlab.records.run import ClassScore
from resnetlab.train.evaluate import BATCH, calibration_error, class_scores

LEVEL = 0.95
LEAST = 1e-38
"""A probability below this counts as this one, so that a sure mistake has a finite loss."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a network answers on ``n`` labelled images of ``source``; ``split`` None is all of them.

    ``low`` to ``high`` is the Wilson interval of the accuracy, 95 %. ``confusion`` has ``(true, predicted, count)`` of
    the counts that are not 0, by the number of the class. ``unanswered`` images, for which the network gave no finite
    number, are wrong; ``unreadable`` files are not among the ``n``.
    """

    source: str
    split: str | None
    classes: list[str]
    n: int
    accuracy: float
    low: float
    high: float
    loss: float
    calibration_error: float | None
    unanswered: int
    unreadable: int
    missing: list[str]
    confusion: list[tuple[int, int, int]]
    scores: list[ClassScore]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Answers on a set as they come: rows with all classes, and for each the number of its true class."""

    source: str
    split: str | None
    classes: tuple[str, ...]
    rows: Iterator[tuple[Row, int]]


def answers_on(predictor: Predictor, source: str, split: str | None, workers: int = 1) -> Answered:
    """What the network answers on the images of ``source``, a set as ``load_data`` reads it, preprocessed as its own.

    ``split`` None is the test images, or those for validation where there are none; a folder without splits is
    evaluated as a whole, and is not held in memory.

    Raises ``DataError`` for a class that the network does not know, ``ConfigError`` for a split that the set has not.
    """
    classes = predictor.classes
    settings = Settings(top=len(classes), workers=workers)
    place = source.removeprefix("folder:")
    where, choice = (place, None) if Path(place).exists() else parse_choice(place)
    if Path(where).is_dir():
        tree = list_folder(Path(where), choice)
        if tree.parts:
            split = split or next(name for name in ("test", "validation", "train") if name in tree.parts)
            require_choice("split", split, tree.parts)
        elif split is not None:
            raise ConfigError(
                f"{printable(source)} has no splits, so --split {split} is not possible; all is evaluated"
            )
        number = _numbers([printable(name) for name in tree.classes], classes, source)
        files = [file for file in tree.files if file.split == split]
        labels = (number[file.label] for file in files)
        items = (Item(str(tree.folder / file.name)) for file in files)
        batches = predict_batches(predictor, batched(items, settings.batch_size), settings)
        rows: Iterator[tuple[Row, int]] = ((row, next(labels)) for some, _ in batches for row in some)
        return Answered(source=source, split=split, classes=classes, rows=rows)
    encoded = source.partition(":")[0] in ENCODED
    decode = DecodeConfig(image_size=predictor.preprocessing.side) if encoded else AS_IT_IS
    data = load_data(source, decode=decode, refuse=lambda _: None)
    split = split or data.reported_split
    require_choice("split", split, data.splits)
    number = _numbers(data.classes, classes, source)
    rows = _of_arrays(predictor, data, data.splits[split], number, settings)  # type: ignore[index]  # it was checked
    return Answered(source=source, split=split, classes=classes, rows=rows)


def answers_on_own(net: nn.Module, data: ImageData, split: SplitName | None) -> Answered:
    """What a run's network answers on the run's own images, as its training evaluated them; ``split`` None is the one
    that is reported.

    Raises ``ConfigError`` for a split that the set has not.
    """
    name = split or data.reported_split
    require_choice("split", name, data.splits)
    return Answered(source=data.source, split=name, classes=data.classes, rows=_of_own(net, data, data.splits[name]))


def _of_own(net: nn.Module, data: ImageData, images: Images) -> Iterator[tuple[Row, int]]:
    net.eval()
    start = 0
    for batch, labels in Loader(images.to(next(net.parameters()).device), data.normalisation, BATCH).in_order():
        with torch.inference_mode():
            logits = net(batch).float().cpu().numpy()
        names = names_of(images, list(range(start, start + len(logits))))
        yield from rows_of(logits, labels.tolist(), names, data.classes)
        start += len(logits)


def _numbers(given: Iterable[str], classes: tuple[str, ...], source: str) -> dict[int, int]:
    """The network's number of each class of a set, by name."""
    places = {name: number for number, name in enumerate(classes)}
    if unknown := [name for name in given if name not in places]:
        raise DataError(
            f"{printable(source)} has classes that the network does not know: {listed(unknown)}; it knows "
            f"{listed(classes)}. Name them alike, or leave them out"
        )
    return {place: places[name] for place, name in enumerate(given)}


def _of_arrays(
    predictor: Predictor, data: ImageData, images: Images, number: Mapping[int, int], settings: Settings
) -> Iterator[tuple[Row, int]]:
    if data.white is None:
        raise DataError(
            f"{data.source} does not say which value is white; name black and white behind it, such as #scale=0..16"
        )
    numbers = torch.split(torch.arange(len(images)), settings.batch_size)
    for which, batch in zip(numbers, images.batches(numbers), strict=True):
        arrays = batch.permute(0, 2, 3, 1).cpu().numpy()
        pixels = np.stack([predictor.preprocessing.pixels(array, data.white) for array in arrays])
        labels = [number[label] for label in images.labels[which].tolist()]
        yield from rows_of(predictor.logits(pixels), labels, names_of(images, which.tolist()), predictor.classes)


def names_of(images: Images, which: list[int]) -> list[str]:
    """What images are called: by their file or row, else by their number in the split."""
    return [str(sample) if images.names is None else images.names[sample] for sample in which]


def rows_of(
    logits: NDArray[np.float32], labels: list[int], names: list[str], classes: tuple[str, ...]
) -> Iterator[tuple[Row, int]]:
    """Rows of a batch of logits ``(N, K)``, with the number of the true class."""
    for found, label, name in zip(predictions(logits, classes, len(classes)), labels, names, strict=True):
        yield Row(name, found, None if found.classes else NO_ANSWER), label


def evaluate_answers(answered: Answered, out: Path | None = None) -> Evaluation:
    """The figures of all answers; ``out`` gets a row for each, as its suffix says.

    Raises ``DataError`` where no image could be read.
    """
    from scipy.stats import binomtest

    classes = answered.classes
    places = {name: number for number, name in enumerate(classes)}
    confusion: Counter[tuple[int, int]] = Counter()
    counts = torch.zeros(len(classes), dtype=torch.int64)
    confidence: list[float] = []
    rights: list[bool] = []
    losses, unanswered, unreadable = 0.0, 0, 0

    def rows() -> Iterator[list[Any]]:
        nonlocal losses, unanswered, unreadable
        for row, label in answered.rows:
            found = row.prediction
            if found.classes:
                confusion[label, places[found.classes[0]]] += 1
                confidence.append(found.probabilities[0])
                rights.append(places[found.classes[0]] == label)
                losses -= log(max(found.probabilities[found.classes.index(classes[label])], LEAST))
            elif row.error == NO_ANSWER:
                unanswered += 1
            else:
                unreadable += 1
                yield [row.path, classes[label], None, None, row.error]
                continue
            counts[label] += 1
            first = (found.answer, round(found.probabilities[0], DIGITS)) if found.classes else (None, None)
            yield [row.path, classes[label], *first, row.error]

    if out is None:
        for _ in rows():
            pass
    else:
        with atomic_stream(out) as stream:
            WRITERS[out.suffix](stream, ["path", "label", "answer", "probability", "error"], rows())
    n, right = int(counts.sum()), sum(rights)
    if not n:
        raise DataError(f"{printable(answered.source)} has no image that can be read")
    interval = binomtest(right, n).proportion_ci(LEVEL, method="wilson")
    table = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    for (true, predicted), count in confusion.items():
        table[true, predicted] = count
    return Evaluation(
        source=answered.source,
        split=answered.split,
        classes=list(classes),
        n=n,
        accuracy=right / n,
        low=float(interval.low),
        high=float(interval.high),
        loss=losses / len(rights) if rights else 0.0,
        calibration_error=calibration_error(torch.tensor(confidence), torch.tensor(rights)),
        unanswered=unanswered,
        unreadable=unreadable,
        missing=[name for name, count in zip(classes, counts.tolist(), strict=True) if not count],
        confusion=[(true, predicted, count) for (true, predicted), count in sorted(confusion.items())],
        scores=class_scores(table, counts),
    )
