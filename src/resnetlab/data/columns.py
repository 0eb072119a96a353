"""Which columns of a table hold the pictures and the labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnetlab.data.opened import shown
from resnetlab.core.errors import ConfigError, DataError

LABEL_WORDS = ("label", "labels", "class", "category", "target", "y")
MISSING = -1
"""Label of a picture whose table gives it none, as the Hub does for test pictures that are kept secret."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the two columns."""

    image: str
    label: str


def choose_columns(features: Mapping[str, Any], named: Sequence[str], source: str) -> Columns:
    """Pictures: the column of the type Image, or of structs with ``bytes``. Labels: the column of the type ClassLabel,
    else the one of numbers or texts whose name says that it holds labels. ``named`` are columns that the user chose.

    Raises ``ConfigError`` where several could be meant, or ``named`` has none of ``features``; ``DataError`` where
    there is none.
    """
    unknown = [name for name in named if name not in features]
    if unknown:
        raise ConfigError(f"{source} has no column {unknown[0]!r}; its columns: {_list(features)}")
    images = [name for name, feature in features.items() if is_image(feature)]
    labels = [name for name, feature in features.items() if hasattr(feature, "names")]
    plain = [name for name, feature in features.items() if is_plain(feature)]
    labels = labels or [name for name in plain if looks_like_label(name)]
    chosen = [name for name in named if name not in images]
    refused = [name for name in chosen if name not in (*labels, *plain)]
    if refused:
        raise ConfigError(f"column {refused[0]!r} of {source} holds neither pictures nor labels; {_list(features)}")
    return Columns(
        image=_only([name for name in named if name in images] or images, "pictures", source, features),
        label=_only(chosen or labels, "labels", source, features),
    )


def is_image(feature: Any) -> bool:
    """Whether a column's type is Image, or a struct with the encoded picture as ``bytes``."""
    return type(feature).__name__ == "Image" or (isinstance(feature, Mapping) and "bytes" in feature)


def is_plain(feature: Any) -> bool:
    """Whether a column holds whole numbers or texts."""
    kind = str(getattr(feature, "dtype", ""))
    return type(feature).__name__ == "Value" and kind.startswith(("int", "uint", "string", "large_string"))


def looks_like_label(name: str) -> bool:
    """Whether the name of a column is one that labels usually have, such as ``label`` or ``fine_label``."""
    return name.lower().rpartition("_")[2] in LABEL_WORDS


def number_labels(
    columns: Mapping[str, Sequence[Any]], names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """Names of the classes, and each split's labels as their numbers, ``MISSING`` for none.

    With ``names``, of a ClassLabel, the labels are numbers already; else the classes are the different values, sorted.
    """
    if names is not None:
        known = {number: number for number in range(len(names))}
        classes = tuple(map(str, names))
    else:
        values = {value for column in columns.values() for value in column if value is not None}
        known = {value: number for number, value in enumerate(sorted(values))}
        classes = tuple(map(str, known))
    return classes, {split: [known.get(value, MISSING) for value in column] for split, column in columns.items()}


def _only(candidates: Sequence[str], what: str, source: str, features: Mapping[str, Any]) -> str:
    if not candidates:
        raise DataError(f"{source} has no column of {what}; its columns: {_list(features)}")
    if len(candidates) > 1:
        names = [shown(name) for name in candidates]
        raise ConfigError(
            f"{source} has several columns of {what}: {', '.join(names)}; choose one by writing it behind a #, such as "
            f"{source.partition('#')[0]}#{names[0]}"
        )
    return candidates[0]


def _list(features: Mapping[str, Any]) -> str:
    return ", ".join(f"{shown(name)} ({type(feature).__name__})" for name, feature in list(features.items())[:20])
