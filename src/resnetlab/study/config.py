"""A study: a recipe, axes, and seeds. Each axis is a field of the recipe and its values; every combination is run."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from resnetlab.core.config import command_of, parse_yaml
from resnetlab.core.errors import ConfigError, DataError, require, unknown_name
from resnetlab.core.serialize import as_plain
from resnetlab.train.recipe import Recipe, as_text, read_mapping, recipe_from

Axes = dict[str, tuple[str, ...]]
Kind = Literal["plain", "residual"]
Family = Literal["cifar", "imagenet", "mlp"]

FAMILIES: dict[Family, str] = {"cifar": "cifar_resnet20", "imagenet": "resnet34", "mlp": "mlp_resnet34"}
"""The residual network of each family, whose name takes every depth."""
DEPTHS = (8, 20, 56)
MOST_RUNS = 10_000
"""Runs of a study: guards against typing errors."""


def study_recipe() -> Recipe:
    """What a study trains unless told otherwise: what ``train`` does, but with nothing set aside to choose by, since a
    study reports the last epoch."""
    return Recipe(validation=False)


def uncropped(recipe: Recipe) -> Recipe:
    """The recipe with no random crop unless it names one: how plain and residual nets are compared by default."""
    augment = recipe.training.augment
    if augment.crop_padding is not None:
        return recipe
    return replace(recipe, training=replace(recipe.training, augment=replace(augment, crop_padding=0)))


def depth_axes(kinds: Sequence[Kind] = (), depths: Sequence[int] = (), shortcut: str = "default") -> Axes:
    """The axes that ``--kinds`` and ``--depths`` stand for; by default plain and residual nets at ``DEPTHS``."""
    return {
        "shortcut": tuple("none" if kind == "plain" else shortcut for kind in kinds or get_args(Kind)),
        "depth": tuple(str(depth) for depth in sorted(depths or DEPTHS)),
    }


@dataclass(frozen=True, kw_only=True)
class Study:
    """Every combination of the axes' values × seeds, all else equal; by default plain and residual nets over depths.

    Raises ``ConfigError`` for an unknown axis, with the nearest known one, and for values that make no study.
    """

    recipe: Recipe = field(default_factory=lambda: uncropped(study_recipe()))
    """What is trained, but for the axes."""
    axes: Axes = field(default_factory=depth_axes)
    """Each a field of the recipe, such as shortcut, training.lr or options.norm, or depth: the number in the model's
    name. The values are written as in YAML."""
    seeds: int = 3
    """Runs of each condition, with seeds from the recipe's on; all are paired by seed."""

    def __post_init__(self) -> None:
        require(len(self.axes) > 0, "axes", self.axes, "one or more, such as --axis shortcut=A,B,C,none")
        for name, values in self.axes.items():
            check_axis(name)
            require(0 < len(values) == len(set(values)), f"axis {name}", values, "one value or more, all different")
        require(1 <= self.seeds <= 1000, "seeds", self.seeds, "from 1 to 1000")
        runs = self.seeds * prod(map(len, self.axes.values()))
        require(runs <= MOST_RUNS, "axes and seeds", runs, f"at most {MOST_RUNS} runs")
        options = {f"options.{name}" for name in self.recipe.options} | self.axes.keys()
        for name in sorted({"options.depth", "options.depths"} & options) if "depth" in self.axes else ():
            raise ConfigError(f"{name} would undo the axis depth of the study; leave one of them out")


def known_axes(kind: type = Recipe, prefix: str = "") -> Iterator[str]:
    """Every setting that can be an axis by name alone: ``model``, ``training.lr``, ``training.augment.flip``, …"""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint) and isinstance(hint, type):
            yield from known_axes(hint, f"{prefix}{name}.")
        elif prefix or name not in ("seed", "options"):
            yield f"{prefix}{name}"
    if not prefix:
        yield "depth"


def check_axis(name: str) -> None:
    """Raise ``ConfigError`` unless there is such an axis; ``options.NAME`` is for the network to judge."""
    known = list(known_axes())
    if name in known or re.fullmatch(r"options\.\w+", name):
        return
    if name == "seed":
        raise ConfigError("seed is no axis: each condition has --seeds N runs, with seeds from --seed on")
    last = name.rpartition(".")[2]
    namesakes = [other for other in known if other.rpartition(".")[2] == last]
    if namesakes:
        raise ConfigError(f"unknown axis {name!r}; did you mean {' or '.join(map(repr, namesakes))}?")
    raise unknown_name("axis", name, known)


def read_axes(texts: Sequence[str]) -> Axes:
    """Axes from texts such as ``training.lr=0.05,0.1``; a list is in brackets, ``options.widths=[64],[64,32]``.

    ``model.shortcut`` is taken for ``shortcut``, and ``model.norm`` for ``options.norm``.

    Raises ``ConfigError`` for a text of another form, or an axis that stands twice.
    """
    axes: Axes = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = re.sub(r"^model\.(?!shortcut$)", "options.", name.strip()).removeprefix("model.")
        parsed = _parse_values(values)
        if not (name and equals and parsed):
            raise ConfigError(f"--axis {text!r} is not possible: it must be NAME=VALUE,VALUE, such as depth=20,56")
        if name in axes:
            raise ConfigError(f"axis {name} stands twice; give all its values at once, --axis {name}=A,B")
        axes[name] = tuple(map(as_text, parsed))
    return axes


def load_study(path: Path) -> tuple[Recipe, Axes, int | None]:
    """The recipe, axes and number of seeds of a file that a user wrote: a recipe, with ``axes`` and ``seeds`` or not.

    Raises as ``load_recipe`` does.
    """
    plain = read_mapping(path)
    axes, seeds = plain.pop("axes", {}), plain.pop("seeds", None)
    recipe = recipe_from({"validation": study_recipe().validation} | plain, path)
    if not isinstance(axes, dict) or not all(isinstance(values, list) for values in axes.values()):
        raise ConfigError(f"{path}: axes={axes!r} is not possible: it must hold lists, such as shortcut: [A, B]")
    require(seeds is None or type(seeds) is int, f"{path}: seeds", seeds, "a whole number")
    return recipe, {str(name): tuple(map(as_text, values)) for name, values in axes.items()}, seeds


def study_command(study: Study) -> str:
    """The command that reproduces this study, with every setting that is not the default."""
    usual = Study()
    words, defaults = list[str](), usual.recipe
    if [*study.axes] != [*usual.axes] or study.axes["shortcut"] != usual.axes["shortcut"]:
        words = [word for name, values in study.axes.items() for word in ("--axis", f"{name}={join_values(values)}")]
        defaults = study_recipe()
    elif study.axes != usual.axes:
        words = ["--depths", *study.axes["depth"]]
    return command_of("study", "STUDY", _as_flags(study.recipe, study.seeds), _as_flags(defaults, usual.seeds), words)


def _as_flags(recipe: Recipe, seeds: int) -> dict[str, Any]:
    """The settings by the names of their flags: ``--workers`` of a study are its own, not those that decode."""
    plain = as_plain(recipe)
    return {"seeds": seeds, "data_workers": plain["decode"].pop("workers"), **plain}


def join_values(values: Sequence[str]) -> str:
    """The values with commas between, such that ``read_axes`` finds the same ones."""
    text = ",".join(values)
    return text if tuple(map(as_text, _parse_values(text))) == tuple(values) else as_text([*values])[1:-1]


def _parse_values(text: str) -> list[Any]:
    """The values of a list without its brackets; none where it is no list."""
    try:
        parsed = parse_yaml(f"[{text}]", "axis")
    except DataError:
        return []
    return parsed if isinstance(parsed, list) else []


def study_settings(study: Study) -> dict[str, Any]:
    """The study as ``study.json`` holds it."""
    return {"format": 2, **as_plain(study)}
