"""How other projects name the weights of the same networks: rename tables between their names and ours.

A table is a list of (pattern over our name, their name). It is written once, from ours to theirs; the other direction
is its inverse over the names of one network, so that the two cannot drift apart. The names were read off the projects'
own state dicts: torchvision 0.28, timm 1.0.31, akamaster's ``pytorch_resnet_cifar10``, labml's ``ResNetBase``.

Where two networks have the same names and shapes and yet compute different things, the table says what it ``needs``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn

from resnetlab.core.errors import CheckpointError, ConfigError, require_choice
from resnetlab.models.config import NetConfig
from resnetlab.models.resnet import ResNetConfig
from resnetlab.models.vgg import VGGConfig

OURS = "resnetlab"
DIALECTS = (OURS, "torchvision", "timm", "akamaster", "labml")


class Rule(NamedTuple):
    """``pattern`` over our name; ``theirs``, a format of its groups and of ``layer``, ``flat``, ``next`` and ``body``.

    ``layer`` is the stage from 1 on, ``flat`` the number of the block (or VGG layer) over all stages, ``next`` is n + 1
    and ``body`` the prefix of labml's nets that have a head. Their weight is a ``kernel``×``kernel`` convolution where
    ours is a matrix.
    """

    pattern: str
    theirs: str
    kernel: int = 0


class TheirTensor(NamedTuple):
    """Name and shape of a tensor in another project."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rules of one dialect for one kind of network, and the settings without parameters that it implies."""

    rules: tuple[Rule, ...]
    needs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    first_stride: int = 1
    """The stride of the first stage; the others have the other one of 1 and 2."""


def _in_blocks(place: str, *pairs: tuple[str, str]) -> tuple[Rule, ...]:
    start = r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\."
    return tuple(Rule(rf"{start}{ours}\.(?P<rest>.+)", f"{place}{theirs}.{{rest}}") for ours, theirs in pairs)


def _at_top(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(rf"{ours}\.(?P<rest>[^.]+)", f"{theirs}.{{rest}}") for ours, theirs in pairs)


def _as_convolution(ours: str, theirs: str, kernel: int) -> Rule:
    return Rule(rf"{ours}\.(?P<rest>[^.]+)", f"{theirs}.{{rest}}", kernel)


_LAYER = "layer{layer}.{block}."
_BRANCH = ((r"branch\.conv(?P<n>\d)", "conv{n}"), (r"branch\.norm(?P<n>\d)", "bn{n}"))
_LAYERS = _in_blocks(_LAYER, *_BRANCH)
_STEM = _at_top((r"stem\.conv", "conv1"), (r"stem\.norm", "bn1"))
_DOWNSAMPLE = _in_blocks(_LAYER, (r"shortcut\.conv", "downsample.0"), (r"shortcut\.norm", "downsample.1"))
_SQUEEZE = _in_blocks(_LAYER, (r"branch\.se\.(?P<fc>fc\d)", "se.{fc}"))
_FC = _at_top(("head", "fc"))
_FEATURES = (Rule(r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\.(?P<rest>[^.]+)", "features.{flat}.{rest}"),)

_USUAL: dict[str, tuple[Any, ...]] = {
    "shortcut": ("B",),
    "norm": ("batch",),
    "activation": ("relu",),
    "stride_in": ("3x3",),
    "stem_activation": (True,),
    "stem_pool": (True,),
    "projection_pool": (False,),
}

TABLES: dict[tuple[str, str], Table] = {
    ("torchvision", "post"): Table(rules=_STEM + _LAYERS + _DOWNSAMPLE + _FC, needs=_USUAL),
    ("torchvision", "vgg"): Table(
        rules=_FEATURES + _at_top((r"hidden\.(?P<n>\d)", "classifier.{n}"), ("head", "classifier.6"))
    ),
    ("timm", "post"): Table(rules=_STEM + _LAYERS + _SQUEEZE + _DOWNSAMPLE + _FC, needs=_USUAL),
    ("timm", "deep"): Table(
        rules=(
            *_at_top((r"stem\.conv1", "conv1.0"), (r"stem\.norm1", "conv1.1"), (r"stem\.conv2", "conv1.3")),
            *_at_top((r"stem\.norm2", "conv1.4"), (r"stem\.conv", "conv1.6"), (r"stem\.norm", "bn1")),
            *_LAYERS,
            *_SQUEEZE,
            # Number 0 is the average, or an identity where nothing is averaged.
            *_in_blocks(_LAYER, (r"shortcut\.conv", "downsample.1"), (r"shortcut\.norm", "downsample.2")),
            *_FC,
        ),
        needs=_USUAL | {"projection_pool": (True,)},
    ),
    ("timm", "pre"): Table(
        rules=(
            *_at_top((r"stem\.conv", "stem.conv"), (r"final\.norm", "norm")),
            *_in_blocks(
                "stages.{stage}.blocks.{block}.",
                (r"preactivation\.norm", "norm1"),
                (r"branch\.conv(?P<n>\d)", "conv{n}"),
                (r"branch\.norm(?P<n>\d)", "norm{next}"),
                (r"shortcut\.conv", "downsample.conv"),
            ),
            _as_convolution("head", "head.fc", 1),
        ),
        needs=_USUAL,
    ),
    ("timm", "vgg"): Table(
        rules=(
            *_FEATURES,
            _as_convolution(r"hidden\.0", "pre_logits.fc1", 7),
            _as_convolution(r"hidden\.3", "pre_logits.fc2", 1),
            *_at_top(("head", "head.fc")),
        )
    ),
    ("akamaster", "post"): Table(
        rules=(
            *_STEM,
            *_LAYERS,
            *_in_blocks(_LAYER, (r"shortcut\.conv", "shortcut.0"), (r"shortcut\.norm", "shortcut.1")),
            *_at_top(("head", "linear")),
        ),
        needs=_USUAL | {"shortcut": ("A", "B"), "pad": ("center",)},
    ),
    ("labml", "post"): Table(
        rules=(
            *_at_top((r"stem\.conv", "{body}conv"), (r"stem\.norm", "{body}bn"), ("head", "1")),
            *_in_blocks("{body}blocks.{flat}.", *_BRANCH),
            *_in_blocks(
                "{body}blocks.{flat}.", (r"shortcut\.conv", "shortcut.conv"), (r"shortcut\.norm", "shortcut.bn")
            ),
        ),
        needs=_USUAL | {"stem_activation": (False,), "stem_pool": (False,), "conv_bias": (True,)},
        first_stride=2,
    ),
}

# The first pattern that any name fits decides; torchvision's names are the ones that the others vary.
_SIGNATURES = (
    (OURS, r"stages\.\d+\.\d+\.(branch\..+|weight)"),
    ("timm", r"stages\.\d+\.blocks\.\d+\..+|pre_logits\.fc1\..+|layer\d+\.\d+\.se\..+|conv1\.0\.weight"),
    ("akamaster", r"linear\.weight|layer\d+\.\d+\.shortcut\.\d\..+"),
    ("labml", r"(0\.)?blocks\.\d+\.(conv\d|bn\d|shortcut)\..+"),
    ("torchvision", r"layer\d+\.\d+\.conv\d\.weight|features\.\d+\.weight"),
)


def find_dialect(names: Iterable[str]) -> str:
    """Which project's names these are. timm names a plain ``resnet*`` as torchvision does, and counts as torchvision.

    Raises ``CheckpointError`` for names of none of them.
    """
    known = list(names)
    for dialect, pattern in _SIGNATURES:
        if any(re.fullmatch(pattern, name) for name in known):
            return dialect
    shown = ", ".join(map(repr, known[:3])) or "none at all"
    raise CheckpointError(f"the names ({shown}, …) are those of no known project; known are {', '.join(DIALECTS)}")


def their_names(model: nn.Module, dialect: str) -> dict[str, TheirTensor]:
    """For every name of ``model.state_dict()`` that of the other project, and the shape there.

    Raises ``ConfigError`` where that project has no such network: a setting that it cannot have, or a layer without a
    name there.
    """
    require_choice("dialect", dialect, DIALECTS)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if dialect == OURS:
        return {name: TheirTensor(name, shape) for name, shape in shapes.items()}
    table = _find_table(model, dialect)
    found = {name: _rename(name, shape, table, model) for name, shape in shapes.items()}
    unnamed = [name for name, theirs in found.items() if theirs is None]
    if unnamed:
        raise ConfigError(
            f"{dialect} has no name for {unnamed[0]!r} and {len(unnamed) - 1} more: no such network there"
        )
    return {name: theirs for name, theirs in found.items() if theirs is not None}


def head_names(model: nn.Module, dialect: str) -> tuple[str, str]:
    """The other project's names of the head's weight and bias, whether or not ``model`` has one."""
    if dialect == OURS:
        return "head.weight", "head.bias"
    table = _find_table(model, dialect)
    weight, bias = (_rename(f"head.{kind}", (1, 1), table, model) for kind in ("weight", "bias"))
    assert weight is not None
    assert bias is not None
    return weight.name, bias.name


def _find_table(model: nn.Module, dialect: str) -> Table:
    config = model.config
    assert isinstance(config, NetConfig)
    table = TABLES.get((dialect, _kind(config)))
    if table is None:
        kinds = ", ".join(kind for project, kind in TABLES if project == dialect)
        raise ConfigError(f"{dialect} has no network of kind {_kind(config)!r}; its names are known for: {kinds}")
    if isinstance(config, ResNetConfig):
        _check_needs(config, dialect, table)
    return table


def _kind(config: NetConfig) -> str:
    if isinstance(config, VGGConfig):
        return "vgg"
    if not isinstance(config, ResNetConfig):
        return "mlp"
    if config.order == "pre":
        return "pre"
    return "deep" if config.stem_kind == "deep" else "post"


def _check_needs(config: ResNetConfig, dialect: str, table: Table) -> None:
    strides = (table.first_stride,) + (3 - table.first_stride,) * (len(config.depths) - 1)
    usual = (1,) + (2,) * (len(config.depths) - 1)
    wanted: dict[str, tuple[Any, ...]] = {**table.needs, "strides": (strides,)}
    for setting, allowed in wanted.items():
        given = (config.strides or usual) if setting == "strides" else getattr(config, setting)
        # Without zero-padding its side is idle.
        if given not in allowed and not (setting == "pad" and config.shortcut != "A"):
            raise ConfigError(
                f"networks of {dialect} have {setting}={' or '.join(map(repr, allowed))} and this one has {given!r}: "
                f"the same weights would give another result; build it with create_model(…, {setting}={allowed[0]!r})"
            )


def _rename(name: str, shape: tuple[int, ...], table: Table, model: nn.Module) -> TheirTensor | None:
    for rule in table.rules:
        match = re.fullmatch(rule.pattern, name)
        if match:
            theirs = rule.theirs.format(**match.groupdict(), **_numbers(match.groupdict(), model))
            matrix = rule.kernel and match["rest"] == "weight"
            return TheirTensor(theirs, _as_kernel(shape, rule.kernel) if matrix else shape)
    return None


def _numbers(groups: dict[str, str], model: nn.Module) -> dict[str, Any]:
    """What a rule's format may name beside the groups of its pattern."""
    found: dict[str, Any] = {"body": "0." if getattr(model.config, "num_classes", 0) else ""}
    if "n" in groups:
        found["next"] = int(groups["n"]) + 1
    if "stage" in groups:
        stage = int(groups["stage"])
        stages = model.stages
        assert isinstance(stages, nn.Sequential)
        before = [part for part in list(stages)[:stage] if isinstance(part, nn.Sequential)]
        found |= {"layer": stage + 1, "flat": sum(map(len, before)) + int(groups["block"])}
    return found


def _as_kernel(shape: tuple[int, ...], kernel: int) -> tuple[int, ...]:
    return (shape[0], shape[1] // kernel**2, kernel, kernel)
