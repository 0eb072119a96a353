"""The command that makes a record again."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def command_of(
    verb: str, out: str, settings: Mapping[str, Any], defaults: Mapping[str, Any], words: Sequence[str] = ()
) -> str:
    """``resnetlab VERB --out OUT`` with ``words`` and a flag for each of ``settings`` that is not the default, nested
    ones as well.

    Both are the plain form of a configuration (``records.as_plain``). A record of an older version may lack a setting
    or have one that ``defaults`` no longer knows: the first is left out, the second named.
    """
    return shlex.join(["resnetlab", verb, "--out", out, *words, *_flags(settings, defaults)])


def _flags(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        default = defaults.get(name)
        if isinstance(value, dict) and isinstance(default, dict) and default:
            yield from _flags(value, default)
        elif value != default:
            yield from _flag(name.replace("_", "-"), value)


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, dict):
        return [f"--{name}", *(word for pair in value.items() for word in map(str, pair))]
    values = value if isinstance(value, list | tuple) else [value]
    return [f"--{name}", *map(str, values)]
