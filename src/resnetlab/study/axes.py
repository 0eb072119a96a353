"""A study over any settings: each axis is a field of the recipe and its values, and every combination is run."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_type_hints

from resnetlab.core.config import build_settings, command_of, parse_yaml
from resnetlab.core.errors import ConfigError, DataError, require, unknown_name
from resnetlab.core.serialize import as_plain
from resnetlab.records import gradients as flow
from resnetlab.records.run import RunRecord
from resnetlab.records.study import ComparedRun, Comparison
from resnetlab.study import statistics as contrasts
from resnetlab.study.plan import PlannedRun
from resnetlab.train.recipe import Recipe, as_text, read_mapping, recipe_from

MOST = 10_000
"""Runs of a study; more are a slip of the finger."""


@dataclass(frozen=True, kw_only=True)
class AxesStudy:
    """Every combination of the axes' values × seeds, all else equal.

    Raises ``ConfigError`` for an unknown axis, with the nearest known one, and for values that make no study.
    """

    recipe: Recipe = field(default_factory=Recipe)
    """What is trained, but for the axes."""
    axes: dict[str, tuple[str, ...]]
    """Each a field of the recipe, such as shortcut, training.lr or options.norm, or depth: the number in the model's
    name. The values are written as in YAML; differences are taken to the first."""
    seeds: int = 3
    """Runs of each combination, with seeds from the recipe's on; all are paired by seed."""

    def __post_init__(self) -> None:
        require(len(self.axes) > 0, "axes", self.axes, "one or more, such as --axis shortcut=A,B,C,none")
        for name, values in self.axes.items():
            check_axis(name)
            require(0 < len(values) == len(set(values)), f"axis {name}", values, "one value or more, all different")
        require(1 <= self.seeds <= 1000, "seeds", self.seeds, "from 1 to 1000")
        runs = self.seeds
        for values in self.axes.values():
            runs *= len(values)
        require(runs <= MOST, "axes and seeds", runs, f"at most {MOST} runs")


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
        raise ConfigError("seed is no axis: each combination has --seeds N runs, with seeds from --seed on")
    last = name.rpartition(".")[2]
    twins = [other for other in known if other.rpartition(".")[2] == last]
    raise (
        unknown_name("axis", name, twins or known)
        if not twins
        else ConfigError(f"unknown axis {name!r}; did you mean {' or '.join(map(repr, twins))}?")
    )


def read_axes(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Axes from texts such as ``training.lr=0.05,0.1``; a list is in brackets, ``options.widths=[64],[64,32]``.

    ``model.shortcut`` is taken for ``shortcut``, and ``model.norm`` for ``options.norm``.

    Raises ``ConfigError`` for a text of another form, or an axis that stands twice.
    """
    axes: dict[str, tuple[str, ...]] = {}
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


def load_study(path: Path) -> tuple[Recipe, dict[str, tuple[str, ...]], int | None]:
    """The recipe, axes and number of seeds of a file that a user wrote: a recipe, with ``axes`` and ``seeds`` or not.

    Raises as ``load_recipe`` does.
    """
    plain = read_mapping(path)
    axes, seeds = plain.pop("axes", {}), plain.pop("seeds", None)
    recipe = recipe_from(plain, path)
    if not isinstance(axes, dict) or not all(isinstance(values, list) for values in axes.values()):
        raise ConfigError(f"{path}: axes={axes!r} is not possible: it must hold lists, such as shortcut: [A, B]")
    require(seeds is None or type(seeds) is int, f"{path}: seeds", seeds, "a whole number")
    return recipe, {str(name): tuple(map(as_text, values)) for name, values in axes.items()}, seeds


def plan_axes(config: AxesStudy) -> list[PlannedRun]:
    """Every combination, seed by seed, so that an interrupted study has all of its first seeds.

    Raises ``ConfigError`` for values that make no recipe.
    """
    planned = []
    for seed, values in product(range(config.seeds), product(*config.axes.values())):
        place = dict(zip(config.axes, values, strict=True))
        number = config.recipe.seed + seed
        label = ", ".join(f"{name} {text}" for name, text in place.items())
        recipe = vary(config.recipe, place, number)
        planned.append(PlannedRun(values=place, seed=number, recipe=recipe, label=label))
    return planned


def vary(recipe: Recipe, values: Mapping[str, str], seed: int) -> Recipe:
    """The recipe with those settings instead of its own.

    Raises ``ConfigError`` for a value of another type, or that makes no recipe.
    """
    plain = as_plain(recipe) | {"seed": seed}
    # The depth is that of the model, which may be an axis too.
    for name in sorted(values, key=lambda name: name == "depth"):
        text = values[name]
        head, _, last = name.rpartition(".")
        if name == "depth":
            plain["model"] = at_depth(str(plain["model"]), text)
        elif head == "options":
            plain["options"] = plain["options"] | {last: text}
        else:
            inner = plain
            for part in filter(None, head.split(".")):
                inner = inner[part]
            inner[last] = parse_yaml(text, name)
    try:
        return build_settings(Recipe, plain)
    except ConfigError as error:
        place = ", ".join(f"{name}={text}" for name, text in values.items())
        raise ConfigError(f"the study has no run at {place}: {error}") from error


def at_depth(model: str, depth: str) -> str:
    """The name with that depth: ``cifar_resnet20`` at 56 is ``cifar_resnet56``.

    Raises ``ConfigError`` where the depth is no whole number, or the name has none.
    """
    require(depth.isdecimal(), "depth", depth, "a whole number")
    name, found = re.subn(r"(?<=[a-z_])\d+", depth, model, count=1)
    require(found == 1, "model", model, "a name with a depth, such as cifar_resnet20, where depth is an axis")
    return name


def axes_command(config: AxesStudy) -> str:
    """The command that makes this study, with every setting that is not the default."""
    axes = [f"{name}={join_values(values)}" for name, values in config.axes.items()]
    settings, defaults = as_plain(config.recipe) | {"seeds": config.seeds}, as_plain(Recipe()) | {"seeds": 3}
    return command_of("study", "STUDY", settings, defaults, [word for axis in axes for word in ("--axis", axis)])


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


def axes_record(config: AxesStudy, planned: int, ended: Sequence[tuple[PlannedRun, RunRecord]]) -> Comparison:
    """The study from the records of its runs: statistics over seeds, and paired differences."""
    runs = [
        ComparedRun(
            values=run.values,
            seed=run.seed,
            flow_start=flow.judge(record.gradients_start),
            flow_end=flow.judge(record.gradients_end),
            record=record,
        )
        for run, record in ended
    ]
    return Comparison(
        settings=as_plain(config),
        command=axes_command(config),
        axes={name: list(values) for name, values in config.axes.items()},
        rule=contrasts.RULE,
        planned=planned,
        runs=runs,
        combinations=contrasts.make_combinations(runs),
        contrasts=contrasts.make_contrasts(runs, config.axes),
    )
