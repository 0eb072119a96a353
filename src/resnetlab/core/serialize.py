"""Records as JSON: dataclasses to plain data and back, strictly typed."""

from dataclasses import is_dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar, get_origin

from resnetlab.core.errors import DataError
from resnetlab.core.files import read_json, write_json

Record = TypeVar("Record")


@lru_cache
def _converter() -> Any:
    from cattrs.preconf.json import make_converter

    converter = make_converter(forbid_extra_keys=True)
    for kind in (int, float, bool, str):
        converter.register_structure_hook(kind, _strictly)
    # As in JSON: cattrs would leave a pair a tuple, which is not equal to the list that is read again.
    converter.register_unstructure_hook_func(
        _is_pair, lambda values: [converter.unstructure(value) for value in values]
    )
    converter.register_structure_hook_factory(lambda kind: hasattr(kind, "upgrade"), _upgrading)
    return converter


def _upgrading(kind: Any, converter: Any) -> Any:
    """Reads records that know their older formats: ``upgrade`` turns the plain form of one into that of today."""
    from cattrs.gen import make_dict_structure_fn

    read = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)
    return lambda value, _: read(kind.upgrade(value) if isinstance(value, dict) else value, kind)


def _is_pair(kind: Any) -> bool:
    origin: Any = get_origin(kind)
    return origin is tuple


def _strictly(value: Any, kind: type) -> Any:
    """``value`` if it is of that very type; cattrs would make 2 of 2.7, and True of "false"."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (isinstance(value, float) and not isfinite(value)):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def as_plain(record: object) -> Any:
    """The record as dicts, lists, strings and numbers."""
    return _converter().unstructure(record)


def from_plain(kind: type[Record], value: Any, origin: str) -> Record:
    """The record of that kind. Raises ``DataError`` naming ``origin`` where a key is missing, unknown or ill-typed."""
    from cattrs import transform_error

    if is_dataclass(kind) and not isinstance(value, dict):
        raise DataError(f"{origin} holds no {kind.__name__}; it was damaged or is not ours")
    try:
        result: Record = _converter().structure(value, kind)
    except Exception as error:
        name = getattr(kind, "__name__", kind)
        raise DataError(f"{origin} is not a valid {name}: {'; '.join(transform_error(error))}") from error
    return result


def write_record(path: Path, record: object) -> None:
    """The record as a JSON file, which ``read_record`` reads."""
    write_json(path, as_plain(record))


def read_record(kind: type[Record], path: Path) -> Record:
    """Raises ``DataError`` where the file is missing, damaged or no record of that kind."""
    return from_plain(kind, read_json(path), str(path))
