"""The verb ``data``: look at a set of images before it is trained on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from resnetlab.cli.tables import print_columns, show
from resnetlab.core.errors import ConfigError, DataError, listed
from resnetlab.data.config import DecodeConfig

if TYPE_CHECKING:
    from resnetlab.data.dataset import ImageData
    from resnetlab.data.inspect import Duplicates, Inspection

SHEET, FINDINGS = "contact-sheet.png", "inspect.json"
MOST_ROWS, SHOWN = 100, 5


@dataclass(frozen=True, kw_only=True)
class Data:
    """inspect: show what a data set is, all that is wrong with it, and a sheet of some images of each class. It is read
    as far as it can be. Exit code 3 if train would refuse it.

    pack: write image files anew at one size, in a form that is read at speed.
    """

    action: tyro.conf.Positional[Literal["inspect", "pack"]]
    """What is done with it."""
    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """What --data of train takes, such as digits, idx:FOLDER, parquet:DIR or a folder of images."""
    split_seed: int = 0
    """Decides the split of data that comes without one."""
    decode: Annotated[DecodeConfig, tyro.conf.OmitArgPrefixes]
    """How images and labels are read."""
    reindex: bool = False
    """Open every file of a folder of images again, whatever its index says."""
    out: Path | None = None
    """Folder for contact-sheet.png and inspect.json, by default runs/inspect; with pack a new folder for shards, or a
    new file .npz for arrays."""
    json: bool = False
    """Print what was found as one JSON object instead of tables."""
    to: Literal["shards", "arrays"] | None = None
    """pack: shards are tar files with JPEG at 1.15 times --image-size, for shards:OUT; arrays are pixels of that size
    in one file, for npz:OUT."""

    def __call__(self) -> None:
        if self.action == "pack":
            self.pack()
        elif self.to is not None:
            raise ConfigError(f"--to {self.to} is for data pack, and this is data inspect; leave it out")
        else:
            self.inspect(self.out or Path("runs/inspect"))

    def pack(self) -> None:
        """Write the set anew, and say how to train on it."""
        from resnetlab.cli.progress import progress_of
        from resnetlab.data.pack import pack
        from resnetlab.data.sources import load_data

        if self.to is None or self.out is None or self.decode.image_size is None:
            raise ConfigError(
                "data pack needs to know what to write: --to shards|arrays, --image-size N and --out PLACE"
            )
        with progress_of("reading") as on_progress:
            data = load_data(self.source, self.split_seed, self.decode, on_progress)
        with progress_of("packing") as on_progress:
            files = pack(data, self.to, self.out, self.decode.workers, on_progress)
        size = sum(path.stat().st_size for path in files)
        show(*(f"note: {note}" for note in data.notes))
        show(f"{sum(map(len, data.splits.values())):,} images, {size / 1e6:,.1f} MB in {len(files)} files")
        show(f"train on it: --data {'shards' if self.to == 'shards' else 'npz'}:{self.out}")

    def inspect(self, out: Path) -> None:
        """Print what was found, and write it to ``out`` with a contact sheet."""
        from resnetlab.cli.progress import progress_of
        from resnetlab.core.files import atomic_write
        from resnetlab.data.inspect import inspect_data, read_anyway, unread
        from resnetlab.data.sources import forget_index, split_source

        if self.reindex:
            forget_index(self.source)
        with progress_of("reading") as on_progress:
            data, refusals = read_anyway(self.source, self.split_seed, self.decode, on_progress)
        if data is not None and len(data.train):
            with progress_of("comparing") as on_progress:
                found, sheet = inspect_data(data, on_progress, refusals), draw(data)
        elif (where := split_source(self.source)[1]) and Path(where).exists():
            found, sheet = unread(self.source, data, refusals), None
        else:
            raise refusal(refusals)
        # Escaped, so that a name that is no valid text can be written all the same.
        text = json.dumps(asdict(found), indent=None if self.json else 1, allow_nan=False)
        atomic_write(out / FINDINGS, text + "\n")
        if sheet is None:
            (out / SHEET).unlink(missing_ok=True)
        else:
            atomic_write(out / SHEET, sheet)
        if self.json:
            show(text)
        else:
            print_inspection(found)
            if sheet is not None:
                show("", f"sheet: {out / SHEET}")
        if refusals:
            raise refusal(refusals)


def refusal(reasons: Sequence[str]) -> DataError:
    """The error of a set that is not trained on: its one reason; several are listed before it."""
    if len(reasons) == 1:
        return DataError(reasons[0])
    show(f"{len(reasons)} reasons not to train on this set:", *(f"- {each}" for each in reasons), errors=True)
    return DataError(f"train would refuse this set for these {len(reasons)} reasons")


def draw(data: "ImageData") -> bytes:
    """The contact sheet of the training images, as PNG."""
    from resnetlab.data.inspect import pick_samples
    from resnetlab.report.contact_sheet import MOST_CLASSES, MOST_IMAGES, SheetRow, draw_sheet

    mark = data.fingerprint
    rows = [
        SheetRow(
            name=data.classes[number],
            detail=" + ".join(f"{mark[f'{split}_counts'][number]:,}" for split in data.splits),
            images=samples.images.permute(0, 2, 3, 1).numpy(),
            captions=samples.names,
        )
        for number, samples in pick_samples(data, MOST_CLASSES, MOST_IMAGES).items()
    ]
    shown = f", the first {len(rows)} shown" if len(rows) < len(data.classes) else ""
    return draw_sheet(
        data.source,
        f"{_counts(mark)} images, {_shape(mark)}, {len(data.classes)} classes{shown}",
        rows,
        peak=data.train.brightest,
    )


def print_inspection(found: "Inspection") -> None:
    """Fingerprint, counts, notes and findings as text."""
    mark = found.fingerprint
    if not _splits(mark):
        print_columns([("source", mark["source"]), ("images", "none that can be read")])
        show("", *(f"note: {note}" for note in found.notes), *_unreadable(found))
        return
    print_columns(
        [
            ("source", mark["source"]),
            ("images", _counts(mark)),
            ("shape", _shape(mark)),
            ("encoding", mark["encoding"]),
            ("mean", _levels(mark["mean"])),
            ("std", _levels(mark["sd"])),
            ("sha256", mark["sha256"]),
        ]
    )
    show("")
    splits = _splits(mark)
    rows = list(zip(mark["classes"], *(mark[f"{split}_counts"] for split in splits), strict=True))
    print_columns([("class", *splits), *((name, *(f"{n:,}" for n in counts)) for name, *counts in rows[:MOST_ROWS])])
    if len(rows) > MOST_ROWS:
        show(f"… and {len(rows) - MOST_ROWS} more classes, in {FINDINGS}")
    show("")
    show(*(f"note: {note}" for note in found.notes), *describe_findings(found))


def describe_findings(found: "Inspection") -> list[str]:
    """What was looked for, a line each, with names or numbers of images where there are any."""
    mark = found.fingerprint
    empty = [name for name, count in zip(mark["classes"], mark["train_counts"], strict=True) if not count]
    lines = []
    for where, copies in found.duplicates.items():
        later, _, earlier = where.partition(" in ")
        what = f"{later} images that are in {earlier} too" if earlier else f"equal images in {where}"
        lines += [f"{what}: {_pairs(copies)}", *_conflicts(copies)]
    for where, copies in found.near.items():
        later, _, earlier = where.partition(" in ")
        lines += [f"{later} images nearly equal to one in {earlier}: {_pairs(copies)}", *_conflicts(copies)]
    lines += [
        f"images of one colour in {split}: {constant.count:,}{_list(constant.names or constant.examples)}"
        for split, constant in found.constant.items()
    ]
    lines += [*_unreadable(found), _balance(mark)]
    if empty:
        lines.append(f"classes without training images: {listed(empty, 10)}")
    return lines


def _unreadable(found: "Inspection") -> list[str]:
    more = len(found.unreadable) - MOST_ROWS
    return [
        *(f"unreadable: {name}: {why}" for name, why in found.unreadable[:MOST_ROWS]),
        *([f"… and {more} more that cannot be read, in {FINDINGS}"] if more > 0 else []),
    ]


def _balance(mark: dict[str, Any]) -> str:
    """How many training images the largest class has for one of the smallest, and what always naming it would score."""
    counts = {name: n for name, n in zip(mark["classes"], mark["train_counts"], strict=True) if n}
    few, many = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    ratio, share = counts[many] / counts[few], counts[many] / mark["train"]
    return (
        f"classes in train: from {counts[few]:,} ({few}) to {counts[many]:,} ({many}) images, 1 to {ratio:.1f}; "
        f"always saying {many} is right for {share:.1%}"
    )


def _conflicts(copies: "Duplicates") -> list[str]:
    return (
        [f"  labels that differ: {_several([f'{a} = {b}' for a, b in copies.conflicts])}"] if copies.conflicts else []
    )


def _splits(mark: dict[str, Any]) -> list[str]:
    return [split for split in ("train", "validation", "test") if split in mark]


def _counts(mark: dict[str, Any]) -> str:
    return ", ".join(f"{mark[split]:,} {split}" for split in _splits(mark))


def _shape(mark: dict[str, Any]) -> str:
    return "×".join(map(str, mark["shape"]))


def _levels(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def _pairs(copies: "Duplicates") -> str:
    relabelled = f", {copies.relabelled:,} under another label" if copies.relabelled else ""
    return (
        f"{copies.count:,}{relabelled}{_list([f'{one} = {other}' for one, other in copies.names or copies.examples])}"
    )


def _list(examples: Sequence[object]) -> str:
    return f" (such as {_several(examples)})" if examples else ""


def _several(examples: Sequence[object]) -> str:
    return ", ".join(map(str, examples[:SHOWN]))
