"""A study: a recipe, axes, and seeds. Each axis is a field of the recipe and its values; every combination is run."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from math import isfinite, prod
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
EXAMPLE = {"--axis": "depth=20,56", "--tune": "training.lr=0.01,0.03,0.1"}
TUNING_SEEDS = 10_000
"""How far above the first seed that judges the first one that tunes is; a study has fewer seeds."""
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
    tune: Axes = field(default_factory=dict)
    """One setting and the values, rising numbers above 0, of which each condition takes its best; or none."""
    tune_seeds: int = 2
    """Runs of each condition at each of these values, with seeds from ``TUNING_SEEDS`` above the recipe's on."""

    def __post_init__(self) -> None:
        require(len(self.axes) > 0, "axes", self.axes, "one or more, such as --axis shortcut=A,B,C,none")
        for name, values in self.axes.items():
            check_axis(name)
            require(0 < len(values) == len(set(values)), f"axis {name}", values, "one value or more, all different")
        require(1 <= self.seeds <= 1000, "seeds", self.seeds, "from 1 to 1000")
        self._check_tuning()
        tried = sum(map(len, self.tune.values())) * self.tune_seeds
        runs = (self.seeds + tried) * prod(map(len, self.axes.values()))
        require(runs <= MOST_RUNS, "axes and seeds", runs, f"at most {MOST_RUNS} runs")
        options = {f"options.{name}" for name in self.recipe.options} | self.axes.keys()
        for name in sorted({"options.depth", "options.depths"} & options) if "depth" in self.axes else ():
            raise ConfigError(f"{name} would undo the axis depth of the study; leave one of them out")

    def _check_tuning(self) -> None:
        require(len(self.tune) <= 1, "tune", [*self.tune], "one setting, such as --tune training.lr=0.01,0.1")
        require(1 <= self.tune_seeds <= 1000, "tune_seeds", self.tune_seeds, "from 1 to 1000")
        require(bool(self.tune) or self.tune_seeds == 2, "tune_seeds", self.tune_seeds, "given with tune")
        for name, values in self.tune.items():
            check_axis(name)
            require(name not in self.axes, "tune", name, "no axis of the study: each condition has its own value of it")
            numbers = [as_number(value) for value in values]
            rising = all(number > 0 for number in numbers) and numbers == sorted(set(numbers))
            require(rising and len(values) > 1, f"tune {name}", values, "two rising numbers above 0, or more")


def as_number(text: str) -> float:
    """The number of a value; 0 where it is none, or not finite."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if isfinite(number) else 0.0


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


def read_tune(text: str | None) -> Axes:
    """The setting and its values to tune, from a text such as ``training.lr=0.01,0.1``; numbers in rising order.

    Raises as ``read_axes`` does.
    """
    return rising(read_axes([text], "--tune")) if text else {}


def rising(axes: Axes) -> Axes:
    """The axes with the values of each in the order of their numbers."""
    return {name: tuple(sorted(values, key=as_number)) for name, values in axes.items()}


def read_axes(texts: Sequence[str], flag: str = "--axis") -> Axes:
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
            raise ConfigError(f"{flag} {text!r} is not possible: it must be NAME=VALUE,VALUE, such as {EXAMPLE[flag]}")
        if name in axes:
            raise ConfigError(f"axis {name} stands twice; give all its values at once, --axis {name}=A,B")
        axes[name] = tuple(map(as_text, parsed))
    return axes


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """What a file says of a study; a number of seeds that it leaves open is None."""

    recipe: Recipe
    axes: Axes = field(default_factory=dict)
    seeds: int | None = None
    tune: Axes = field(default_factory=dict)
    tune_seeds: int | None = None


def load_study(path: Path) -> StudyFile:
    """The study in a file that a user wrote: a recipe, with ``axes``, ``seeds``, ``tune`` and ``tune_seeds`` or not.

    Raises as ``load_recipe`` does.
    """
    plain = read_mapping(path)
    axes, tune = (_axes_of(plain.pop(name, {}), name, path) for name in ("axes", "tune"))
    seeds, tune_seeds = (plain.pop(name, None) for name in ("seeds", "tune_seeds"))
    for name, number in (("seeds", seeds), ("tune_seeds", tune_seeds)):
        require(number is None or type(number) is int, f"{path}: {name}", number, "a whole number")
    recipe = recipe_from({"validation": study_recipe().validation} | plain, path)
    return StudyFile(recipe=recipe, axes=axes, seeds=seeds, tune=rising(tune), tune_seeds=tune_seeds)


def _axes_of(plain: Any, name: str, path: Path) -> Axes:
    if not isinstance(plain, dict) or not all(isinstance(values, list) for values in plain.values()):
        raise ConfigError(f"{path}: {name}={plain!r} is not possible: it must hold lists, such as shortcut: [A, B]")
    return {str(axis): tuple(map(as_text, values)) for axis, values in plain.items()}


def study_command(study: Study) -> str:
    """The command that reproduces this study, with every setting that is not the default."""
    usual = Study()
    words, defaults = list[str](), usual.recipe
    if [*study.axes] != [*usual.axes] or study.axes["shortcut"] != usual.axes["shortcut"]:
        words = [word for name, values in study.axes.items() for word in ("--axis", f"{name}={join_values(values)}")]
        defaults = study_recipe()
    elif study.axes != usual.axes:
        words = ["--depths", *study.axes["depth"]]
    for name, values in study.tune.items():
        words += ["--tune", f"{name}={join_values(values)}", "--tune-seeds", str(study.tune_seeds)]
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
    """The study as ``study.json`` holds it; one that tunes nothing as before there was any tuning."""
    plain = as_plain(study)
    return {"format": 2, **{name: value for name, value in plain.items() if study.tune or "tune" not in name}}
