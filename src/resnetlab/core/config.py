"""Settings that a person wrote in YAML, read strictly: a slip is named with its key, and never passed over."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from resnetlab.core.errors import ConfigError, DataError, require, require_choice, unknown_name
from resnetlab.core.serialize import from_plain

Settings = TypeVar("Settings")

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "left out"}


def read_yaml(path: Path) -> Any:
    """The value in a YAML file, as ``parse_yaml`` has it. Raises ``DataError`` where it cannot be read or is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a YAML text, where ``1e-3`` is a number, as in YAML 1.2, and a key may stand once only.

    Raises ``DataError`` naming ``origin`` where it is none.
    """
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        """Fails on a key that stands twice: the first value would be lost in silence."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = [key for number, key in enumerate(keys) if key in keys[:number]]
            if twice:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {twice[0]!r} stands twice", node.start_mark
                )
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("+-0123456789")
    )
    try:
        return yaml.load(text, Loader)  # a safe one
    except (RecursionError, TypeError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{origin} cannot be read: {error}") from error


def build_settings(kind: type[Settings], plain: object, prefix: str = "") -> Settings:
    """The settings of that dataclass, nested ones too; what is left out has its default value.

    Raises ``ConfigError`` for a key that no setting has, with the nearest known one, for a value of another type, and
    for values that the dataclass refuses.
    """
    if not isinstance(plain, Mapping):
        example = fields(kind)[0].name  # type: ignore[arg-type]  # kind is a dataclass
        raise ConfigError(
            f"{prefix.rstrip('.') or 'this'}={plain!r} is not possible: it must hold settings, such as {example}: …"
        )
    types = get_type_hints(kind)
    for key in plain:
        if key not in types:
            raise unknown_name("setting", f"{prefix}{key}", [f"{prefix}{name}" for name in types])
    return kind(**{key: _value(types[key], value, f"{prefix}{key}") for key, value in plain.items()})


def _value(kind: Any, value: object, name: str) -> Any:
    if is_dataclass(kind) and isinstance(kind, type):
        return build_settings(kind, value, f"{name}.")
    if get_origin(kind) is Literal:
        require_choice(name, value, get_args(kind))  # type: ignore[arg-type]  # what is no text is no choice either
        return value
    try:
        return from_plain(kind, value, name)
    except DataError:
        require(False, name, value, in_words(kind))


def in_words(kind: Any) -> str:
    """What a value of that type is, in words: ``a whole number, or left out``."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return ", or ".join(in_words(part) for part in sorted(inner, key=lambda part: part is NoneType))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is tuple:
        count = "" if inner[-1] is Ellipsis else f" of {len(inner)}"
        return f"a list{count}, each {in_words(inner[0])}"
    if origin is dict:
        return "a mapping of names to values"
    return WORDS.get(kind, str(kind))


def command_of(
    verb: str, out: str, settings: Mapping[str, Any], defaults: Mapping[str, Any], words: Sequence[str] = ()
) -> str:
    """``resnetlab VERB --out OUT`` with ``words`` and a flag for each of ``settings`` that is not the default, nested
    ones as well.

    Both are the plain form of a configuration (``records.as_plain``). A record of an older version may lack a setting
    or have one that ``defaults`` no longer knows: the first is left out, the second named.
    """
    return " ".join(map(quote, ["resnetlab", verb, "--out", out, *words, *_flags(settings, defaults)]))


def quote(word: str) -> str:
    """The word for a shell; one with a line break or another letter that cannot be printed as ``$'a\\x0ab'``."""
    if word.isprintable():
        return shlex.quote(word)
    parts = []
    for letter in word:
        if letter in "'\\":
            parts.append(f"\\{letter}")
        elif letter.isprintable():
            parts.append(letter)
        else:
            parts += [f"\\x{byte:02x}" for byte in os.fsencode(letter)]
    return f"$'{''.join(parts)}'"


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
