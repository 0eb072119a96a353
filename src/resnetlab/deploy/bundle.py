"""A bundle: a folder that holds a trained network with its classes and its preprocessing. No torch is loaded here."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from resnetlab.core.errors import CheckpointError, ConfigError, DataError, listed, printable
from resnetlab.core.files import digest, read_json, write_json
from resnetlab.core.serialize import as_plain, from_plain, write_record
from resnetlab.deploy.preprocessing import Preprocessing

BUNDLE, CONFIG, WEIGHTS, CARD = "bundle.json", "config.json", "model.safetensors", "README.md"
LIBRARY = "resnetlab"


@dataclass(frozen=True, kw_only=True)
class FileSum:
    """Size and SHA-256 of a file of a bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What a bundle holds: ``bundle.json``.

    ``model`` is the network's name in the zoo, ``classes`` are in the order of the logits, ``results`` the figures of
    the run by name, ``environment`` the versions that made the bundle. ``recipe`` is that of the run, ``data`` the
    SHA-256 of its data, and ``note`` a sentence for the card. ``files`` has the sum of every other file, by its path in
    the folder.
    """

    name: str
    model: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    results: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    note: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileSum] = field(default_factory=dict)
    format: Literal[1] = 1


def bundle_name(folder: Path) -> str:
    """The name of the model in a server and in a repository: that of the folder, in letters that both take."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-.") or "model"


def seal(bundle: Bundle, folder: Path) -> Bundle:
    """Write ``bundle.json`` with the sums of all other files in ``folder``, and return what it holds."""
    from dataclasses import replace

    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / BUNDLE)
    sums = {}
    for path in paths:
        content = path.read_bytes()
        sums[path.relative_to(folder).as_posix()] = FileSum(bytes=len(content), sha256=digest(content))
    sealed = replace(bundle, files=sums)
    write_record(folder / BUNDLE, sealed)
    return sealed


def read_bundle(folder: Path) -> Bundle:
    """The bundle in ``folder``; its files are checked as they are read (``checked``).

    Raises ``CheckpointError`` where there is none, or it is damaged.
    """
    if not (folder / BUNDLE).is_file():
        raise CheckpointError(
            f"{printable(folder)} holds no bundle (it has no {BUNDLE}); make one: resnetlab export RUN --out FOLDER"
        )
    try:
        bundle = from_plain(Bundle, read_json(folder / BUNDLE), printable(folder / BUNDLE))
    except (DataError, ConfigError) as error:
        raise CheckpointError(str(error)) from error
    outside = [name for name in bundle.files if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise CheckpointError(f"{printable(folder / BUNDLE)} names files outside its folder ({listed(outside)})")
    return bundle


def checked(bundle: Bundle, folder: Path, name: str) -> Path:
    """The path of a file of the bundle, whose sum is right.

    Raises ``CheckpointError`` for a file that is not there, damaged, or not the bundle's.
    """
    if name not in bundle.files:
        here = ", ".join(sorted({path.partition("/")[0] for path in bundle.files}))
        raise CheckpointError(f"{printable(folder)} has no {name}; it has {here}")
    path = folder / name
    content = path.read_bytes() if path.is_file() else b""
    if (len(content), digest(content)) != (bundle.files[name].bytes, bundle.files[name].sha256):
        raise CheckpointError(f"{printable(path)} is missing or damaged: its SHA-256 is not the one in {BUNDLE}")
    return path


def write_config(folder: Path, network: dict[str, Any], more: dict[str, Any]) -> None:
    """``config.json``: the configuration of the network under our name, beside what other libraries read."""
    write_json(folder / CONFIG, {"library_name": LIBRARY, **more, LIBRARY: as_plain(network)})
