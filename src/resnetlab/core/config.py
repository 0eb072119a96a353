"""Settings that a person wrote in YAML, read strictly: a slip is named with its key, and never passed over."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from resnetlab.core.errors import ConfigError, DataError, one_line, require, require_choice, unknown_name
from resnetlab.core.files import open_file
from resnetlab.core.serialize import from_plain

Settings = TypeVar("Settings")

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "left out"}


MOST_YAML = 1 << 18
"""Bytes of the longest file of settings; the recipes of the project have two thousand."""
MOST_VALUES = 100_000
"""Values of a text with each alias in place of what it stands for: without a limit ten lines stand for gigabytes."""
MOST_DEPTH = 50
"""Values within values; a recipe has four. PyYAML takes seconds to find out by itself that it cannot go deeper."""
LARGEST = 1 << 63
"""Whole numbers lie below it, whatever their sign."""

INTEGER = r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$"
REAL = (
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))$|\.(?:nan|NaN|NAN)$"
)


def read_yaml(path: Path) -> Any:
    """The value in a YAML file, as ``parse_yaml`` has it. Raises ``DataError`` where it cannot be read or is none."""
    try:
        with open_file(path) as stream:
            content = stream.read(MOST_YAML + 1)
        text = content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if len(content) > MOST_YAML:
        raise DataError(f"{path} cannot be read: it has more than {MOST_YAML:,} bytes, and is no file of settings")
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """The value of a YAML text, in a time that grows as its length. A key may stand once only.

    Numbers are those of the command line, as in YAML 1.2: ``1e-3`` is one, ``010`` is ten, and ``1:30`` is none.
    Raises ``DataError`` naming ``origin`` where it is no YAML, or holds a number beyond ``LARGEST``.
    """
    import yaml

    try:
        loader = _loader()(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (RecursionError, TypeError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{origin} cannot be read: {one_line(error)}") from error


def yaml_text(value: Any, **style: Any) -> str:
    """Plain data as YAML that ``parse_yaml`` reads to the same value: a text that looks like a number is quoted."""
    import yaml

    return str(yaml.dump(value, Dumper=_dumper(), allow_unicode=True, **style))


@cache
def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what either YAML 1.1 or ``parse_yaml`` takes for a number, and escapes what cannot be printed."""

        def represent_text(self, text: str) -> yaml.ScalarNode:
            style = None if text.isprintable() else '"'
            return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, Dumper.represent_text)
    for tag, pattern in _numbers():
        Dumper.add_implicit_resolver(tag, pattern, list("-+.0123456789"))
    return Dumper


def _numbers() -> list[tuple[str, "re.Pattern[str]"]]:
    return [("tag:yaml.org,2002:int", re.compile(INTEGER)), ("tag:yaml.org,2002:float", re.compile(REAL))]


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Fails on a key that stands twice: the first value would be lost in silence. ``<<`` may stand in each."""

        depth = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.depth == MOST_DEPTH:
                reader: Any = self
                raise yaml.composer.ComposerError(
                    None, None, f"more than {MOST_DEPTH} values lie in one another", reader.peek_event().start_mark
                )
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            seen = set()
            for place, _ in node.value:
                if place.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(place, deep=True)
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} stands twice", node.start_mark
                    )
                seen.add(key)
            return super().construct_mapping(node, deep)

        def construct_integer(self, node: yaml.ScalarNode) -> int:
            digits = str(self.construct_scalar(node)).replace("_", "")
            base = {"0x": 16, "0b": 2}.get(digits.lstrip("+-")[:2], 10)
            if len(digits) > 70 or abs(number := int(digits, base)) >= LARGEST:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the number {digits[:20]}… lies beyond 2^63", node.start_mark
                )
            return number

    numbers = _numbers()
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if tag not in dict(numbers)]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for tag, pattern in numbers:
        Loader.add_implicit_resolver(tag, pattern, list("-+.0123456789"))
    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_integer)
    return Loader


def _check_size(root: Any) -> None:
    """Raise ``ValueError`` where the node stands for more than ``MOST_VALUES`` values, or for itself."""
    sizes: dict[int, int] = {}
    under_way = set()
    work = [(root, False)]
    while work:
        node, done = work.pop()
        parts = _parts(node)
        if done:
            under_way.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in parts)
            if sizes[id(node)] > MOST_VALUES:
                raise ValueError(f"it stands for more than {MOST_VALUES:,} values")
        elif id(node) not in sizes:
            if id(node) in under_way:
                raise ValueError("a value holds itself")
            under_way.add(id(node))
            work.append((node, True))
            work += [(part, False) for part in parts if id(part) not in sizes]


def _parts(node: Any) -> list[Any]:
    if isinstance(node.value, str):
        return []
    return [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]


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
