"""One rule for labels and classes, wherever the images come from: what means no label, and what nothing can teach."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from resnetlab.core.errors import DataError, listed
from resnetlab.data.dataset import ImageData, Numbers, SplitName

MISSING = -1
"""Label of an image that has none, as the Hub writes it for test images that are kept secret."""
LISTED = 20
NAMES = "classes.txt"
"""Beside files that have labels alone: the names of their classes, one a line from label 0 on."""

Refuse = Callable[[str], None]
"""What is done with a reason not to train on a set: raised (``raise_it``), or gathered by who looks at the set."""


def raise_it(message: str) -> NoReturn:
    """Raise ``DataError`` of that message."""
    raise DataError(message)


def some(names: Sequence[str]) -> str:
    """The first ``LISTED`` of ``names`` for a message."""
    return listed(names, LISTED)


def without_unlabelled(
    labels: Mapping[SplitName, Numbers], source: str, titles: Mapping[SplitName, str], refuse: Refuse = raise_it
) -> tuple[dict[SplitName, Numbers], list[str]]:
    """The splits that have labels, and what should be said of the others; ``titles`` is what each is called.

    A validation or test split whose labels are all ``MISSING`` is left out: its labels are kept secret.

    Refuses training images without labels, and splits that lack some.
    """
    kept, notes = {}, []
    for split, numbers in labels.items():
        unknown, count = int((numbers == MISSING).sum()), len(numbers)
        if unknown == count > 0 and split != "train":
            notes.append(f"{titles[split]} has no labels and is left out")
            continue
        if unknown or not count:
            refuse(
                f"{source}: {unknown} of the {count} images of {titles[split]} have no label, or one beyond its "
                f"classes; every image needs one. {MISSING}, null and an empty text mean none: a class needs another"
            )
        if unknown < count:
            kept[split] = numbers
    if "train" not in kept:
        raise DataError(f"{source} has no training images with labels")
    return kept, notes


def judge_classes(
    classes: Sequence[str], labels: Mapping[SplitName, Numbers], source: str, refuse: Refuse, *, folders: bool
) -> list[str]:
    """Refuse classes that only images to evaluate on have; what should be said of those that no image has.

    With ``folders`` each class is a folder, and one without images is refused: its files are missing.
    """
    counts = {split: np.bincount(numbers, minlength=len(classes)) for split, numbers in labels.items()}
    if not counts["train"].any():
        return []
    untaught = counts["train"] == 0
    elsewhere = sum((count for split, count in counts.items() if split != "train"), np.zeros(len(classes), np.int64))
    if only := [name for name, here in zip(classes, untaught & (elsewhere > 0), strict=True) if here]:
        where = " and ".join(split for split, count in counts.items() if count[untaught].any())
        refuse(
            f"{source} has classes without images to train on: {some(only)}; they have {where} images, but a network "
            "can only learn what training images show: add some, or remove these classes"
        )
    notes = []
    empty = untaught & (elsewhere == 0)
    if none := [name for name, here in zip(classes, empty, strict=True) if here]:
        message = f"classes without images to train on: {some(none)}{_first_label(classes, empty)}"
        if folders:
            refuse(f"{source} has {message}; fill or remove their folders, or leave them out with --compact-labels")
        else:
            notes.append(f"{message}; --compact-labels leaves them out")
    for split, count in counts.items():
        missing = [name for name, here in zip(classes, (count == 0) & ~untaught, strict=True) if here]
        if missing and split != "train":
            notes.append(f"no {split} images of: {some(missing)}")
    return notes


def _first_label(classes: Sequence[str], empty: Numbers) -> str:
    """Where the labels are numbers: whether they start above 0, or have gaps."""
    if list(classes) != [str(number) for number in range(len(classes))]:
        return ""
    first = int(np.flatnonzero(~empty)[0]) if not empty.all() else 0
    base = f"labels start at {first}" if first else ""
    gaps = "have gaps" if first else "labels have gaps"
    return f" ({' and '.join(part for part in (base, gaps if empty[first:].any() else '') if part)})"


def compact_classes(data: ImageData) -> ImageData:
    """``data`` without the classes that no image has, the others numbered anew in their order."""
    together = torch.cat([split.labels.cpu() for split in data.splits.values()])
    counts = torch.bincount(together, minlength=len(data.classes)).numpy()
    kept = np.flatnonzero(counts)
    if len(kept) == len(data.classes):
        return data
    number = torch.full((len(data.classes),), MISSING)
    number[torch.from_numpy(kept)] = torch.arange(len(kept))
    left = [name for name, count in zip(data.classes, counts, strict=True) if not count]
    splits = {name: each.relabelled(number.to(each.labels.device)[each.labels]) for name, each in data.splits.items()}
    return replace(
        data,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        classes=tuple(data.classes[at] for at in kept),
        notes=(*data.notes, f"classes without images are left out: {some(left)}"),
    )


def read_names(path: Path, count: int) -> tuple[str, ...]:
    """The names of ``count`` classes in the file ``path``; their numbers where there is none.

    Raises ``DataError`` for a file that is no text or names too few.
    """
    if not path.is_file():
        return tuple(str(number) for number in range(count))
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as text ({error})") from error
    if len(names) < count:
        raise DataError(f"{path} names {len(names)} classes, but the labels go up to {count - 1}; add the others")
    return names
