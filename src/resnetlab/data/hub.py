"""Parquet files and data sets of the Hugging Face Hub, opened with its library ``datasets`` (extra ``hub``).

The library keeps what it opens as an Arrow file in its cache (``HF_HOME``), which is mapped into memory, not read: a
second opening takes no time, and a set may be larger than the memory. Of images, only the bytes are taken from it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resnetlab.core.errors import ConfigError, DataError, first_line, load_extra
from resnetlab.data.ingest import EncodedSet
from resnetlab.data.tables import SPLIT_WORDS, read_tables, split_of

WORDS = tuple(word for words in SPLIT_WORDS.values() for word in words)


def read_parquet(place: str, split_seed: int) -> EncodedSet:
    """The images in the Parquet files of a folder (``find_files``); ``DIR#COLUMN`` chooses the column of the labels.

    The network is not used. Raises ``DataError`` for files that are missing, damaged or hold no images and labels,
    ``ConfigError`` where several columns could be meant, ``MissingExtraError`` without the extra ``hub``.
    """
    folder, named = (place, []) if Path(place).exists() else _parse(place)
    datasets = load_library()
    tables = {}
    for split, files in find_files(Path(folder)).items():
        with _quiet(datasets):
            try:
                tables[split] = datasets.Dataset.from_parquet([str(file) for file in files], split=split)
            except Exception as error:  # the library and pyarrow answer damage with a dozen kinds of error
                cause = error.__cause__ or error
                raise DataError(
                    f"{_list(files)} cannot be read as Parquet ({first_line(cause)}); fetch it again, and check that "
                    "the cache of datasets (HF_HOME) can be written"
                ) from error
    return read_tables(tables, f"parquet:{place}", named, split_seed, Path(folder))


def read_hub(place: str, split_seed: int) -> EncodedSet:
    """The data set ``OWNER/NAME`` of the Hub, fetched once; ``OWNER/NAME#COLUMN`` chooses the column of the labels.

    Raises as ``read_parquet`` does, and ``DataError`` where the Hub cannot be reached and the cache has no copy.
    """
    repository, named = _parse(place)
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
    known = {name: table for name, table in tables.items() if split_of(name)}
    return read_tables(known or tables, f"hub:{place}", named, split_seed, None)


def find_files(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files of each split: ``train*.parquet`` and so on in the folder or in its ``data/``, or all those in
    folders of the splits' names. Files of other names alone are one split, ``train``.

    Raises ``DataError`` where there are none.
    """
    if folder.is_file():
        return {"train": [folder]}
    for place in (folder, folder / "data"):
        files = sorted(place.glob("*.parquet")) + sorted(place.glob("*/*.parquet"))
        named = [(_split_of(file.relative_to(place)), file) for file in files]
        found = {split: [file for name, file in named if name == split] for split in WORDS}
        found = {split: files for split, files in found.items() if files}
        if found:
            return found
        if any(file.parent == place for file in files):
            return {"train": [file for file in files if file.parent == place]}
    raise DataError(
        f"{folder} holds no Parquet files; give the folder of train*.parquet and test*.parquet, or of the folders "
        "train/ and test/"
    )


def load_library() -> Any:
    """The package ``datasets``. Raises ``MissingExtraError`` where it does not load, whatever the reason."""
    return load_extra("datasets", "parquet: or hub:", "hub")


def _split_of(path: Path) -> str | None:
    """The split that a file's folder, or else the start of its name, stands for."""
    words = "|".join(WORDS)
    for text in (*path.parts[:-1], path.stem):
        match = re.match(rf"({words})(?![A-Za-z])", text)
        if match:
            return match[1]
    return None


def _parse(place: str) -> tuple[str, list[str]]:
    where, _, columns = place.partition("#")
    return where, [column for column in columns.split(",") if column]


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
