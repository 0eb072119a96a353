"""The zoo: every network by its name. A variant is a row; a family of free depth is a row with a rule."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from types import EllipsisType
from typing import Any

from torch import nn

from resnetlab.errors import ConfigError, unknown_name
from resnetlab.models.config import NetConfig
from resnetlab.models.init import build
from resnetlab.models.mlp import MLPConfig
from resnetlab.models.resnet import ResNetConfig
from resnetlab.models.shortcuts import ShortcutOption
from resnetlab.models.vgg import VGGConfig
from resnetlab.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network of fixed depth, and how many parameters it must have (the tests count every row)."""

    config: NetConfig
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of any depth that the rule allows, named ``<family><depth>``.

    ``first`` is the least depth and ``step`` the distance to the next one. ``listed`` are the depths that
    ``list_models`` shows.
    """

    at_depth: Callable[[int], NetConfig]
    first: int
    step: int
    rule: str
    listed: tuple[int, ...]

    def config(self, name: str, depth: int) -> NetConfig:
        """The configuration at that depth. Raises ``ConfigError`` naming the two nearest depths of the rule."""
        if depth < self.first or (depth - self.first) % self.step:
            below = max(self.first, depth - (depth - self.first) % self.step)
            raise ConfigError(
                f"{name}{depth}: its depth must be {self.rule}; the nearest are {name}{below} "
                f"and {name}{below + self.step}"
            )
        return self.at_depth(depth)


def _imagenet(depths: tuple[int, ...], **choices: Any) -> ResNetConfig:
    """He et al. 2015, Table 1."""
    return ResNetConfig(depths=depths, widths=(64, 128, 256, 512), **choices)


def _cifar(shortcut: ShortcutOption | None) -> Callable[[int], ResNetConfig]:
    """He et al. 2015, §4.2: three stages of 2n layers with 16, 32 and 64 channels, and option A."""

    def at_depth(depth: int) -> ResNetConfig:
        n = (depth - 2) // 6
        return ResNetConfig(
            stem="cifar", depths=(n, n, n), widths=(16, 32, 64), shortcut=shortcut, num_classes=10, image_size=32
        )

    return at_depth


def _mlp(shortcut: ShortcutOption | None) -> Callable[[int], MLPConfig]:
    return lambda depth: MLPConfig(depth=depth, shortcut=shortcut)


ROWS = Registry[Row](
    "model",
    {
        "plain18": Row(config=_imagenet((2, 2, 2, 2), shortcut=None), parameters=11_515_688),
        "plain34": Row(config=_imagenet((3, 4, 6, 3), shortcut=None), parameters=21_623_848),
        "resnet18": Row(config=_imagenet((2, 2, 2, 2)), parameters=11_689_512),
        "resnet34": Row(config=_imagenet((3, 4, 6, 3)), parameters=21_797_672),
        "resnet50": Row(config=_imagenet((3, 4, 6, 3), branch="bottleneck"), parameters=25_557_032),
        "resnet101": Row(config=_imagenet((3, 4, 23, 3), branch="bottleneck"), parameters=44_549_160),
        "resnet152": Row(config=_imagenet((3, 8, 36, 3), branch="bottleneck"), parameters=60_192_808),
        "vgg11": Row(config=VGGConfig(depths=(1, 1, 2, 2, 2)), parameters=132_863_336),
        "vgg13": Row(config=VGGConfig(depths=(2, 2, 2, 2, 2)), parameters=133_047_848),
        "vgg16": Row(config=VGGConfig(depths=(2, 2, 3, 3, 3)), parameters=138_357_544),
        "vgg19": Row(config=VGGConfig(depths=(2, 2, 4, 4, 4)), parameters=143_667_240),
        "vgg11_bn": Row(config=VGGConfig(depths=(1, 1, 2, 2, 2), norm=True), parameters=132_868_840),
        "vgg13_bn": Row(config=VGGConfig(depths=(2, 2, 2, 2, 2), norm=True), parameters=133_053_736),
        "vgg16_bn": Row(config=VGGConfig(depths=(2, 2, 3, 3, 3), norm=True), parameters=138_365_992),
        "vgg19_bn": Row(config=VGGConfig(depths=(2, 2, 4, 4, 4), norm=True), parameters=143_678_248),
    },
)

_CIFAR_DEPTHS = (8, 20, 32, 44, 56, 110, 128, 1202)
_MLP_DEPTHS = (8, 34, 128, 1000)

FAMILIES = {
    "cifar_plain": Family(at_depth=_cifar(None), first=8, step=6, rule="6n + 2", listed=_CIFAR_DEPTHS),
    "cifar_resnet": Family(at_depth=_cifar("A"), first=8, step=6, rule="6n + 2", listed=_CIFAR_DEPTHS),
    "mlp_plain": Family(at_depth=_mlp(None), first=2, step=1, rule="2 or more", listed=_MLP_DEPTHS),
    "mlp_resnet": Family(at_depth=_mlp("B"), first=2, step=1, rule="2 or more", listed=_MLP_DEPTHS),
}


MOST_DIGITS = 6
"""Digits of a depth; a longer one is a slip of the finger, and no machine could hold the network."""


def list_models(pattern: str = "*") -> list[str]:
    """The names that match a shell pattern, such as ``"cifar_*"``.

    Of a family of free depth, the usual depths are listed; ``create_model`` takes every depth that its rule allows.
    """
    listed = [f"{name}{depth}" for name, family in FAMILIES.items() for depth in family.listed]
    return ROWS.matching(pattern) + [name for name in listed if fnmatchcase(name, pattern)]


def model_config(name: str, **overrides: Any) -> NetConfig:
    """The configuration of a named network, with some of its fields replaced.

    Raises ``ConfigError`` for an unknown name or field, with the nearest ones, and for a value of another type.
    """
    config = _named_config(name)
    known = [field.name for field in fields(config)]
    for key, value in overrides.items():
        if key not in known:
            raise unknown_name(f"setting of {name}", key, known)
        overrides[key] = _fit_type(key, value, getattr(config, key))
    return replace(config, **overrides)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    shortcut: ShortcutOption | EllipsisType | None = ...,
    seed: int = 0,
    device: str = "cpu",
    **overrides: Any,
) -> nn.Module:
    """The named network with its initial weights, a function of ``seed`` and of each parameter's name alone.

    ``shortcut`` is ``"A"``, ``"B"``, ``"C"``, or None for the plain twin; left out, it is the paper's choice for that
    name (A for ``cifar_resnet*``, B for ``resnet18`` … ``resnet152``). ``overrides`` are further fields of the
    network's configuration. ``device="meta"`` gives shapes without memory.

    Raises ``ConfigError`` for an unknown name or setting, with the nearest ones.

    >>> create_model("cifar_resnet20", num_classes=10, in_chans=1)(images)  # (N, 1, H, W) to (N, 10)
    """
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if in_chans is not None:
        overrides["in_chans"] = in_chans
    if shortcut is not ...:
        overrides["shortcut"] = shortcut
    return build(model_config(name, **overrides), seed=seed, device=device)


def _fit_type(key: str, value: Any, default: Any) -> Any:
    """``value`` if it is of the default's type; a list passes for a tuple of whole numbers, and 1 for 1.0.

    A shortcut may be None, and is checked by the configuration.
    """
    if key == "shortcut":
        return value
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    numbers = isinstance(value, tuple) and all(type(item) is int for item in value)
    if type(value) is not type(default) or (isinstance(value, tuple) and not numbers):
        raise ConfigError(f"{key}={value!r} is not possible: it must be like {default!r}")
    return value


def _named_config(name: str) -> NetConfig:
    if name in ROWS:
        return ROWS[name].config
    family = name.rstrip("0123456789")
    depth = name.removeprefix(family)
    if family in FAMILIES and 0 < len(depth) <= MOST_DIGITS:
        return FAMILIES[family].config(family, int(depth))
    raise unknown_name("model", name, list_models())
