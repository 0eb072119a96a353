"""Folders of images: one folder for each class, with or without a part for testing."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from resnetlab.core.errors import DataError, printable
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import Encoding, ImageData, Split, split_by_class
from resnetlab.data.encoded import EncodedSplit
from resnetlab.data.held import SMALL, USUAL_SIDE, is_held
from resnetlab.data.scan import Index, scan_folder, scan_sizes
from resnetlab.data.tree import File, Tree, list_folder, some

MOST_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Files(Sequence[Path]):
    """Files of one folder; a million names take less memory than a million paths."""

    folder: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Path:  # type: ignore[override]  # no slices
        return self.folder / self.names[number]


def read_folder(
    folder: Path, decode: DecodeConfig, split_seed: int, on_progress: Callable[[int, int], None] | None = None
) -> ImageData:
    """The images of ``folder`` (see ``list_folder`` for its layout), every one of them opened and decoded once.

    Without a part for testing, a fifth of the images is split off, stratified by class; ``split_seed`` decides which.
    The side is ``decode.image_size``; by default the images' own where all are squares of one size, else 224. In
    memory are sets below 1 GiB whose images have that size, or are cut to at most 64 pixels; others are decoded when
    asked for. With ``on_bad="skip"`` the set is what it would be without the files that cannot be read.

    ``on_progress`` is told how many files were read, of how many; each counts twice, for its head and its pixels.

    Raises ``DataError`` with the files that cannot be read, and where a class or a part has too few images.
    """
    tree = list_folder(folder)
    progress = _Progress(2 * len(tree.files), on_progress)
    sizes, bad = scan_sizes(folder, tree.files, workers=decode.workers, on_file=progress.tick)
    bad = tree.bad + bad
    files = list(sizes)
    if bad and decode.on_bad == "error":
        # The rest is only read so that everything bad is told at once.
        bad += scan_folder(folder, files, side=SMALL, workers=decode.workers, on_file=progress.tick).bad
        raise DataError(_tell_bad(folder, bad))
    while True:
        side, keep = _choose(sizes, files, decode)
        scans = [
            scan_folder(folder, part, side=side, keep=keep, workers=decode.workers, on_file=progress.tick)
            for part in _parts(tree, files, split_seed)
        ]
        broken = [each for scan in scans for each in scan.bad]
        if not broken:
            break
        bad += broken
        if decode.on_bad == "error":
            raise DataError(_tell_bad(folder, bad))
        # Side and split are those of the images that are left.
        gone = {name for name, _ in broken}
        files = [file for file in files if file.name not in gone]
        progress.total += len(files)
    train, test = (_split(folder, scan, side, decode.workers) for scan in scans)
    return ImageData(
        source=f"folder:{printable(folder)}",
        train=train,
        test=test,
        classes=tuple(printable(name) for name in tree.classes),
        notes=tuple(_notes(tree, files, bad)),
    )


@dataclass
class _Progress:
    total: int
    report: Callable[[int, int], None] | None
    done: int = 0

    def tick(self) -> None:
        self.done += 1
        if self.report:
            self.report(self.done, self.total)


def _choose(sizes: dict[File, tuple[int, int]], files: list[File], decode: DecodeConfig) -> tuple[int, bool]:
    """The side of the images, and whether they are held in memory."""
    found = {sizes[file] for file in files}
    width, height = found.pop() if len(found) == 1 else (0, -1)
    side = decode.image_size or (width if width == height else USUAL_SIDE)
    return side, is_held(side, len(files), whole=side == width == height)


def _parts(tree: Tree, files: list[File], split_seed: int) -> tuple[list[File], list[File]]:
    """The files for training and for testing. Raises ``DataError`` where there are too few to learn from."""
    train = [file for file in files if file.part != "test"]
    test = [file for file in files if file.part == "test"]
    where = printable(tree.folder)
    counts = np.bincount([file.label for file in train], minlength=len(tree.classes))
    if len(tree.classes) < 2:
        names = f"only one, {some(list(tree.classes))}" if tree.classes else "none"
        raise DataError(f"{where} should hold a folder for each class, two or more; it has {names}")
    if empty := [name for name, count in zip(tree.classes, counts, strict=True) if not count]:
        raise DataError(f"{where} has classes without images to train on: {some(empty)}; fill or remove their folders")
    if tree.has_parts:
        if not test:
            raise DataError(f"{where} has no images to test on; fill its val/, valid/ or test/, or remove it")
        return train, test
    if few := [name for name, count in zip(tree.classes, counts, strict=True) if count < 2]:
        raise DataError(
            f"{where} has no part for testing, and classes of a single image, which cannot be split: {some(few)}; "
            "add images, or make train/ and val/"
        )
    chosen = split_by_class(np.array([file.label for file in train]), split_seed)
    first, second = ([train[number] for number in part] for part in chosen)
    return first, second


def _split(folder: Path, scan: Index, side: int, workers: int) -> Split | EncodedSplit:
    labels = torch.tensor([entry.file.label for entry in scan.entries])
    lossy = {entry.lossy for entry in scan.entries}
    encoding: Encoding = "mixed" if len(lossy) == 2 else "jpeg" if lossy == {True} else "lossless"
    if scan.pixels is not None:
        return Split(images=torch.from_numpy(scan.pixels), labels=labels, encoding=encoding)
    identity = hashlib.sha256("".join(entry.sha256 for entry in scan.entries).encode()).hexdigest()
    return EncodedSplit(
        store=Files(folder=folder, names=tuple(entry.file.name for entry in scan.entries)),
        labels=labels,
        side=side,
        levels=torch.from_numpy(scan.levels).double(),
        identity=identity,
        encoding=encoding,
        workers=workers,
    )


def _tell_bad(folder: Path, bad: list[tuple[str, str]]) -> str:
    lines = [f"  {printable(name)}: {reason}" for name, reason in bad[:MOST_SHOWN]]
    more = [f"  and {len(bad) - MOST_SHOWN} more"] if len(bad) > MOST_SHOWN else []
    head = f"{printable(folder)}: {len(bad)} of its files cannot be read; repair or remove them, or leave them out with"
    return "\n".join([f"{head} --on-bad skip", *lines, *more])


def _notes(tree: Tree, files: list[File], bad: list[tuple[str, str]]) -> list[str]:
    notes = list(tree.notes)
    if bad:
        notes.append(f"left out {len(bad)} files that cannot be read: {some([name for name, _ in bad])}")
    if tree.junk:
        kinds = ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(tree.junk.items()))
        notes.append(f"passed over {tree.junk.total()} entries that are no images: {kinds}")
    tested = {file.label for file in files if file.part == "test"}
    if tree.has_parts and len(tested) < len(tree.classes):
        missing = [name for label, name in enumerate(tree.classes) if label not in tested]
        notes.append(f"no images to test on of: {some(missing)}")
    return notes
