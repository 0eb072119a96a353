"""Every error that resnetlab raises on purpose, each with the exit code that the command line gives for it.

A message says what was given, what is allowed, and what to do.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

Made = TypeVar("Made")


class ResNetLabError(Exception):
    """Base of every error below. Exit code 1: the run failed."""

    exit_code = 1


class DivergedError(ResNetLabError):
    """A loss is no longer a finite number."""


class LostRankError(ResNetLabError):
    """Another rank of the run has ended, or cannot be reached any more."""


class ExportError(ResNetLabError):
    """An exported network that does not compute what the trained one does, by the gates of the export."""


class StoppedError(ResNetLabError):
    """A signal asked a run to stop. Exit code 128 + its number, as shells have it: Ctrl-C 130, SIGTERM 143."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = 128 + signal


class ConfigError(ResNetLabError):
    """A setting, a name or a combination of them that makes no sense, or a folder that is taken. Exit code 2."""

    exit_code = 2


class BusyError(ConfigError):
    """A folder in which another process is writing; ``holder`` is its number and its machine, where they are known."""

    def __init__(self, folder: object, holder: str) -> None:
        who = f"another process ({holder})" if holder else "another process"
        super().__init__(f"{who} is writing in {folder}; wait for it or choose another folder")
        self.holder = holder


class DataError(ResNetLabError):
    """Data that is missing, damaged or not what its name says, for one reason or several. Exit code 3."""

    exit_code = 3

    def __str__(self) -> str:
        return "; ".join(map(str, self.args))


class CheckpointError(ResNetLabError):
    """A checkpoint that is missing, damaged or of another network. Exit code 4."""

    exit_code = 4


class StorageError(ResNetLabError):
    """The disk is full, or the folder is read-only. Exit code 5."""

    exit_code = 5


class AddressError(ResNetLabError):
    """An address that cannot be listened on. Exit code 5."""

    exit_code = 5


class MissingExtraError(ResNetLabError):
    """A package of an optional extra that is not installed, or does not load. Exit code 5."""

    exit_code = 5


def do_all(steps: Iterable[Callable[[], Made]]) -> list[Made]:
    """What each step gives. Raises one ``DataError`` with the reasons of all that raise one."""
    made, reasons = list[Made](), list[str]()
    for step in steps:
        try:
            made.append(step())
        except DataError as error:
            reasons += error.args
    if reasons:
        raise DataError(*reasons)
    return made


def unknown_name(kind: str, given: str, allowed: Iterable[str]) -> ConfigError:
    """The error for a name that does not exist: it names the nearest ones, or all of them where they are few."""
    names = sorted(allowed)
    nearest = get_close_matches(given.lower(), names, n=3, cutoff=0.5) or get_close_matches(
        given, names, n=3, cutoff=0.5
    )
    if nearest:
        return ConfigError(f"unknown {kind} {given!r}; did you mean {' or '.join(map(repr, nearest))}?")
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return ConfigError(f"unknown {kind} {given!r}; known: {shown}")


def require_choice(setting: str, given: str, allowed: Iterable[str]) -> None:
    """Raise ``ConfigError`` unless ``given`` is one of ``allowed``; for the checks that configurations make."""
    names = list(allowed)
    if given not in names:
        raise unknown_name(setting, str(given), names)


def require_literals(config: object) -> None:
    """Raise ``ConfigError`` unless every ``Literal`` field of a dataclass (or ``Literal | None``) is allowed."""
    kind: Any = type(config)
    for setting, allowed in _literals(kind).items():
        given = getattr(config, setting)
        if given not in allowed:
            raise unknown_name(setting, str(given), [word for word in allowed if word is not None])


@cache
def _literals(kind: Any) -> dict[str, tuple[Any, ...]]:
    found = {}
    for name, hint in get_type_hints(kind).items():
        parts = (hint,) if get_origin(hint) is Literal else get_args(hint)
        words = [get_args(part) if get_origin(part) is Literal else (None,) for part in parts]
        if all(get_origin(part) is Literal or part is NoneType for part in parts):
            found[name] = tuple(word for some in words for word in some)
    return {name: allowed for name, allowed in found.items() if allowed}


def require(holds: bool, setting: str, given: object, allowed: str) -> None:
    """Raise ``ConfigError`` with one shape of message unless ``holds``; for the checks that configurations make."""
    if not holds:
        raise ConfigError(f"{setting}={given!r} is not possible: it must be {allowed}")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut to 300 letters, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def one_line(error: BaseException) -> str:
    """An error's message on one line, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: object) -> str:
    """``text`` on one line of a message: what cannot be printed, such as a line break or a stray byte, is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def listed(names: Iterable[str], most: int = 8) -> str:
    """The first of ``names`` for a message, each as ``printable`` gives it, and how many more there are."""
    shown = list(names)
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(map(printable, shown[:most])) + more


def load_extra(package: str, purpose: str, extra: str, instead: str = "") -> Any:
    """The optional package, imported. Raises ``MissingExtraError`` where it is missing, or broken in any way."""
    try:
        return import_module(package)
    except Exception as error:  # a broken dependency of it fails in other ways than ImportError
        raise MissingExtraError(
            f"{purpose} needs {package}, which does not load ({first_line(error)}); "
            f"pip install 'resnetlab[{extra}]'{instead}"
        ) from error
