"""Rename tensors between our names and those of other projects, by the tables in ``dialects``.

A table is a list of (pattern over our name, their name). It is written once, from ours to theirs; the other direction
is its inverse over the names of one network, so that the two cannot drift apart.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn

from resnetlab.core.errors import CheckpointError, ConfigError, require_choice
from resnetlab.models.config import NetConfig
from resnetlab.models.dialects import DIALECTS, KERAS_LAYER, KERAS_PART, OURS, SAME_NAMES, SIGNATURES, TABLES, Table
from resnetlab.models.resnet import ResNetConfig
from resnetlab.models.vgg import VGGConfig

_COUNTERS = ".num_batches_tracked"
_SIGNATURES = [(dialect, re.compile(pattern)) for dialect, pattern in SIGNATURES]
# Keras writes layer/layer/part:0 to HDF5, and layer/part in memory; further folders may stand before and between.
_OF_KERAS = re.compile(rf"(?:^|[/.])(?P<layer>{KERAS_LAYER})[/.](?:.+/)?(?P<part>{KERAS_PART})(?::0)?$")
_DEEPEST_PREFIX = 8
_ANYWHERE = re.compile(r"linear\.weight|conv1\.0\.weight|pre_logits\.fc1\..+")
"""Names that tell projects apart, but that other layers have too: no network begins where they do."""


class TheirTensor(NamedTuple):
    """Name and shape of a tensor in another project. ``axes`` is the order there of our axes, where it is another."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None

    def from_ours(self, tensor: Tensor) -> Tensor:
        """Our tensor in their shape."""
        return tensor.reshape(self.shape) if self.axes is None else tensor.permute(self.axes)

    def to_ours(self, tensor: Tensor) -> Tensor:
        """Their tensor with our order of axes; a matrix that is a convolution there stays one."""
        if self.axes is None:
            return tensor
        return tensor.permute([self.axes.index(axis) for axis in range(tensor.dim())])


def find_prefix(name: str) -> str | None:
    """What stands before the part of a name that one of the projects has; None where no part of it is known."""
    keras = _OF_KERAS.search(name)
    if keras:
        return name[: keras.start("layer")]
    start = 0
    for _ in range(_DEEPEST_PREFIX):
        known = any(pattern.fullmatch(name, start) for _, pattern in _SIGNATURES)
        if known and not _ANYWHERE.fullmatch(name, start):
            return name[:start]
        start = name.find(".", start) + 1
        if start == 0:
            return None
    return None


def normal_name(name: str) -> str:
    """The name as the tables have it: of Keras ``layer/part``, else the name itself."""
    keras = _OF_KERAS.search(name)
    return f"{keras['layer']}/{keras['part']}" if keras else name


def find_dialect(names: Iterable[str]) -> str:
    """Which project's names these are; of projects with the same names the first one of ``SAME_NAMES``.

    Raises ``CheckpointError`` for names of none of them.
    """
    known = list(names)
    for dialect, pattern in _SIGNATURES:
        if any(pattern.fullmatch(name) for name in known):
            if dialect != "linear":
                return dialect
            large = any(name.startswith("layer4.") for name in known) or "bn1.weight" not in known
            return "kuangliu" if large else "akamaster"
    shown = ", ".join(map(repr, known[:3])) or "none at all"
    raise CheckpointError(f"the names ({shown}, …) are those of no known project; known are {', '.join(DIALECTS)}")


def fitting_dialect(model: nn.Module, dialect: str) -> str:
    """Of the projects with the names of ``dialect`` the first that has such a network as ``model``, or ``dialect``."""
    config = model.config
    if isinstance(config, ResNetConfig) and _kind(config) == "post":
        for project in SAME_NAMES.get(dialect, ()):
            if _misfit(config, project, TABLES[project, "post"]) is None:
                return project
    return dialect


def their_names(model: nn.Module, dialect: str) -> dict[str, TheirTensor]:
    """For every name of ``model.state_dict()`` that of the other project, and the shape there.

    Counters of batches are left out where that project has none. Raises ``ConfigError`` where it has no such network: a
    setting that it cannot have, or a layer without a name there.
    """
    require_choice("dialect", dialect, DIALECTS)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if dialect == OURS:
        return {name: TheirTensor(name, shape) for name, shape in shapes.items()}
    table = _find_table(model, dialect)
    if not table.counters:
        shapes = {name: shape for name, shape in shapes.items() if not name.endswith(_COUNTERS)}
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
    weight, bias = (
        _rename(f"head.{kind}", (1,) * (2 - at), table, model) for at, kind in enumerate(("weight", "bias"))
    )
    assert weight is not None
    assert bias is not None
    return weight.name, bias.name


def image_notes_of(model: nn.Module, dialect: str) -> str:
    """How the images of a project's networks are preprocessed, where that is not torchvision's way; else nothing."""
    return "" if dialect == OURS else _find_table(model, dialect).images


def _find_table(model: nn.Module, dialect: str) -> Table:
    config = model.config
    assert isinstance(config, NetConfig)
    table = TABLES.get((dialect, _kind(config)))
    if table is None:
        kinds = ", ".join(kind for project, kind in TABLES if project == dialect)
        raise ConfigError(f"{dialect} has no network of kind {_kind(config)!r}; its names are known for: {kinds}")
    misfit = _misfit(config, dialect, table) if isinstance(config, ResNetConfig) else None
    if misfit:
        raise ConfigError(misfit)
    return table


def _kind(config: NetConfig) -> str:
    if isinstance(config, VGGConfig):
        return "vgg"
    if not isinstance(config, ResNetConfig):
        return "mlp"
    deep = config.stem_kind == "deep"
    if config.order == "pre":
        return "pre-deep" if deep else "pre"
    return ("deep" if config.projection_pool else "deep-unpooled") if deep else "post"


def _misfit(config: ResNetConfig, dialect: str, table: Table) -> str | None:
    """What a project's networks have and this one has not, so that the same weights would give another result."""
    rest = len(config.depths) - 1
    usual_stride = 1 if config.stem_kind == "cifar" else 2
    if "last" in table.needs.get("stride_at", ()):
        strides: tuple[int, ...] = (2,) * rest + (1,)
    else:
        strides = (table.first_stride,) + (3 - table.first_stride,) * rest
    wanted = {**table.needs, **(table.plain_needs if config.shortcut is None else {}), "strides": (strides,)}
    for setting, allowed in wanted.items():
        given = config.stage_strides if setting == "strides" else getattr(config, setting)
        if setting == "stem_stride":
            given, allowed = config.first_stride, tuple(stride or usual_stride for stride in allowed)
        if given not in allowed and not _is_idle(config, setting):
            word = "stem" if setting == "stem_kind" else setting
            return (
                f"networks of {dialect} have {word}={' or '.join(map(repr, allowed))} and this one has {given!r}: "
                f"the same weights would give another result; build it with create_model(…, {word}={allowed[0]!r})"
            )
    return None


def _is_idle(config: ResNetConfig, setting: str) -> bool:
    """Whether a setting changes nothing, because the part that it is of is not there."""
    return {
        "pad": config.shortcut != "A",
        "norm_groups": config.norm != "group",
        "norm_eps": config.norm == "none",
        "final_norm": config.order == "post",
        "stem_pool": config.stem_kind == "cifar",
        "stem_pool_zeros": config.stem_kind == "cifar" or not config.stem_pool,
    }.get(setting, False)


def _rename(name: str, shape: tuple[int, ...], table: Table, model: nn.Module) -> TheirTensor | None:
    for rule in table.rules:
        match = re.fullmatch(rule.pattern, name)
        if match:
            groups = match.groupdict()
            theirs = rule.theirs.format(**groups, **_numbers(groups, model))
            if rule.flip:
                axes = (*range(2, len(shape)), 1, 0)
                return TheirTensor(theirs, tuple(shape[axis] for axis in axes), axes)
            matrix = rule.kernel and match["rest"] == "weight"
            return TheirTensor(theirs, _as_kernel(shape, rule.kernel) if matrix else shape)
    return None


def _numbers(groups: dict[str, str], model: nn.Module) -> dict[str, Any]:
    """What a rule's format may name beside the groups of its pattern."""
    found: dict[str, Any] = {"body": "0." if getattr(model.config, "num_classes", 0) else ""}
    if "n" in groups:
        n = int(groups["n"])
        # In weiaicunzai's branch a ReLU stands between a norm and the next convolution.
        found |= {"next": n + 1, "conv_at": 3 * n - 3, "norm_at": 3 * n - 2}
    if "stage" in groups:
        stage, block = int(groups["stage"]), int(groups["block"])
        stages = model.stages
        assert isinstance(stages, nn.Sequential)
        before = [part for part in list(stages)[:stage] if isinstance(part, nn.Sequential)]
        found |= {"layer": stage + 1, "after": stage + 2, "place": block + 1, "flat": sum(map(len, before)) + block}
    if isinstance(model.config, ResNetConfig):
        found["layers"] = 2 if model.config.branch == "basic" else 3
    return found


def _as_kernel(shape: tuple[int, ...], kernel: int) -> tuple[int, ...]:
    return (shape[0], shape[1] // kernel**2, kernel, kernel)
