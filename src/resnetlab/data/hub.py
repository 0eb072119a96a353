"""Parquet files and data sets of the Hugging Face Hub, opened with its library ``datasets`` (extra ``hub``).

The library keeps what it opens as an Arrow file in its cache (``HF_HOME``), which is mapped into memory, not read: a
second opening takes no time, and a set may be larger than the memory. Of images, only the bytes are taken from it.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from resnetlab.core.errors import ConfigError, DataError, do_all, first_line, load_extra, printable
from resnetlab.data.classes import Refuse, raise_it
from resnetlab.data.dataset import SplitName
from resnetlab.data.opening import EncodedSet
from resnetlab.data.splits import Choice, parse_choice, place_names, read_name, without_shard
from resnetlab.data.tables import read_tables

SUFFIXES = (".parquet", ".pq", ".parq")
OTHER_TABLES = (".arrow", ".feather", ".orc", ".csv", ".tsv", ".json", ".jsonl", ".tar", ".zip", ".gz", ".npz", ".h5")


@dataclass(frozen=True, kw_only=True)
class Files:
    """The Parquet files of each split, and what should be said of how they were found."""

    splits: dict[SplitName, list[Path]]
    notes: tuple[str, ...] = ()


def read_parquet(place: str, split_seed: int, refuse: Refuse = raise_it) -> EncodedSet:
    """The images in the Parquet files of a folder (``find_files``), or in one file.

    ``DIR[train=a,test=b]`` says which files are which split, ``DIR#COLUMN`` which column has the labels. The network is
    not used. Raises ``DataError`` for files that are missing, damaged or hold no images and labels, and where it is not
    sure which split a file is or which column is meant; ``MissingExtraError`` without the extra ``hub``.
    """
    where, named, choice = (place, [], None) if Path(place).exists() else _parse(place)
    datasets = load_library()
    files = find_files(Path(where), choice, f"parquet:{place}")
    opened = do_all(partial(_open, datasets, split, paths) for split, paths in files.splits.items())
    tables = dict(zip(files.splits, opened, strict=True))
    titles = {split: without_shard(_within(Path(where), paths[0])) for split, paths in files.splits.items()}
    return read_tables(
        tables, f"parquet:{place}", named, split_seed, Path(where), titles=titles, notes=files.notes, refuse=refuse
    )


def _open(datasets: Any, split: SplitName, paths: list[Path]) -> Any:
    with _quiet(datasets):
        try:
            return datasets.Dataset.from_parquet([str(path) for path in paths], split=split)
        except Exception as error:  # the library and pyarrow answer damage with a dozen kinds of error
            cause = error.__cause__ or error
            raise DataError(
                f"{_list(paths)} cannot be read as Parquet ({first_line(cause)}); fetch it again, and check that "
                "the cache of datasets (HF_HOME) can be written"
            ) from error


def read_hub(place: str, split_seed: int, refuse: Refuse = raise_it) -> EncodedSet:
    """The data set ``OWNER/NAME`` of the Hub, fetched once.

    ``OWNER/NAME[train=a,test=b]`` says which of its splits are which, ``OWNER/NAME#COLUMN`` which column has the
    labels.

    Raises as ``read_parquet`` does, and ``DataError`` where the Hub cannot be reached and the cache has no copy.
    """
    repository, named, choice = _parse(place)
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", repository):
        raise ConfigError(f"hub:{place} is not possible: write hub:OWNER/NAME, such as hub:uoft-cs/cifar10")
    datasets = load_library()
    with _quiet(datasets):
        try:
            tables = dict(datasets.load_dataset(repository))
        except Exception as error:
            raise DataError(
                f"cannot fetch {repository} from the Hub ({first_line(error)}). Without a network: fetch it where "
                "there is one and copy the cache (HF_HOME), or copy its Parquet files and give parquet:DIR"
            ) from error
    source = f"hub:{place}"
    if choice is None:
        placed = place_names(tables, source, "splits")
    else:
        placed = choice.place({name: [name] for name in tables}, source)
    notes = _left_out(list(tables), placed)
    together = {
        split: tables[names[0]] if len(names) == 1 else datasets.concatenate_datasets([tables[name] for name in names])
        for split, names in placed.items()
    }
    titles = {split: "+".join(names) for split, names in placed.items()}
    return read_tables(together, source, named, split_seed, None, titles=titles, notes=notes, refuse=refuse)


def find_files(folder: Path, choice: Choice | None, source: str) -> Files:
    """The Parquet files of each split, in ``folder`` and below: those that ``choice`` names, or by the words of their
    names and folders (``splits.place_names``). One file, or the shards of one, whose name says nothing are ``train``.

    Raises ``DataError`` where there are none, and for a file of which it is not sure which split it is.
    """
    if folder.is_file():
        return Files(splits={"train": [folder]})
    found: dict[str, Path] = {}
    others: Counter[str] = Counter()
    tables: dict[str, str] = {}
    for place, inner, names in os.walk(folder, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith((".", "_"))):
            path = Path(place) / name
            if path.suffix.lower() in SUFFIXES:
                found[_within(folder, path)] = path
                continue
            others[path.suffix.lower() or "without a suffix"] += 1
            if path.suffix.lower() in OTHER_TABLES and read_name(path.stem).split:
                tables[str(path.relative_to(folder))] = str(read_name(path.stem).split)
    if not found:
        raise DataError(
            f"{folder} holds no Parquet files; give the folder of train*.parquet and test*.parquet, or of the folders "
            "train/ and test/"
        )
    order = sorted(found, key=lambda name: (found[name].parent, found[name].name))
    if choice is None:
        placed = place_names(order, source, "Parquet files")
        if unread := [name for name, split in tables.items() if split not in placed]:
            raise DataError(
                f"{source}: {', '.join(map(printable, unread))} is no Parquet but has the name of a split; convert it, "
                f"or leave it out: {source}[{','.join(f'{split}={split}*' for split in placed)}]"
            )
    else:
        placed = choice.place({name: _forms(name) for name in order}, source)
    notes = _left_out(order, placed)
    if others:
        kinds = ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(others.items()))
        notes += (f"passed over {others.total()} files that are not Parquet: {kinds}",)
    for split, names in placed.items():
        notes += _missing_shards(split, names)
    return Files(splits={split: [found[name] for name in names] for split, names in placed.items()}, notes=notes)


def _within(folder: Path, path: Path) -> str:
    """The path within the folder, without its suffix and without ``data/`` in front."""
    if folder == path:
        return path.stem
    return str(path.relative_to(folder).with_suffix("")).removeprefix(f"data{os.sep}")


def _forms(name: str) -> list[str]:
    """What a pattern may call a file: its path with or without number and suffix, its name, or a folder around it."""
    path = Path(name)
    whole = [name, without_shard(name), path.name, without_shard(path.name), *map(str, path.parents)]
    return [*whole, *(f"{form}{suffix}" for form in (name, path.name) for suffix in SUFFIXES), f"data/{name}"]


def _left_out(names: list[str], placed: dict[SplitName, list[str]]) -> tuple[str, ...]:
    read = {name for some in placed.values() for name in some}
    left = [printable(name) for name in names if name not in read]
    return (f"not read: {', '.join(left[:20])}{' …' if len(left) > 20 else ''}",) if left else ()


def _missing_shards(split: SplitName, names: list[str]) -> tuple[str, ...]:
    """A note where files are numbered 00002-of-00005 and not all are there."""
    numbered = [match for name in names if (match := re.search(r"-(\d+)-of-(\d+)", name))]
    total = sum(int(count) for count in {match[2] for match in numbered})
    if not numbered or len(numbered) == total:
        return ()
    return (f"{split}: {len(numbered)} of {total} files are there",)


def load_library() -> Any:
    """The package ``datasets``. Raises ``MissingExtraError`` where it does not load, whatever the reason."""
    return load_extra("datasets", "parquet: or hub:", "hub")


def _parse(place: str) -> tuple[str, list[str], Choice | None]:
    """Where the tables lie, the columns behind a #, and the splits in brackets."""
    where, choice = parse_choice(place)
    where, _, columns = where.partition("#")
    return where, [column for column in columns.split(",") if column], choice


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """No bars and no remarks of the library's own; ours say what happens."""
    shown, level = not datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()


def _list(files: list[Path]) -> str:
    return f"{files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
