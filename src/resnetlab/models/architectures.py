"""Architectures by name: a variant is a row, a family of free depth a row with a rule; configurations as plain data.

Only making a configuration loads torch, so that names are listed at once.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, get_type_hints

from resnetlab.core.errors import ConfigError, DataError, unknown_name
from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.models.habits import our_setting
from resnetlab.models.registry import Registry

if TYPE_CHECKING:
    from resnetlab.models.config import NetConfig
    from resnetlab.models.shortcuts import ShortcutOption

LIBRARY = "resnetlab"


def kinds() -> "dict[str, type[NetConfig]]":
    """The kinds of networks by name, each the class of its configurations."""
    from resnetlab.models.mlp import MLPConfig
    from resnetlab.models.resnet import ResNetConfig
    from resnetlab.models.vgg import VGGConfig

    return {"resnet": ResNetConfig, "vgg": VGGConfig, "mlp": MLPConfig}


@dataclass(frozen=True)
class Settings:
    """What makes the configuration of a network: its kind and what differs from the defaults."""

    kind: str
    choices: dict[str, Any]

    def config(self) -> "NetConfig":
        return kinds()[self.kind](**self.choices)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network of fixed depth, and how many parameters it must have (the tests count every row)."""

    settings: Settings
    parameters: int

    @property
    def config(self) -> "NetConfig":
        return self.settings.config()


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of any depth that the rule allows, named ``<family><depth>``.

    ``first`` is the least depth, and every depth is 2 more than a multiple of one of ``steps``, or any where that is 1.
    ``listed`` are the depths that ``list_models`` shows.
    """

    at_depth: Callable[[int], Settings]
    first: int
    steps: tuple[int, ...]
    rule: str
    listed: tuple[int, ...]

    def config(self, name: str, depth: int) -> "NetConfig":
        """The configuration at that depth. Raises ``ConfigError`` naming the two nearest depths of the rule."""
        if not self.allows(depth):
            below = next((d for d in range(depth, self.first - 1, -1) if self.allows(d)), self.first)
            above = next(d for d in range(max(depth, below) + 1, below + depth + 99) if self.allows(d))
            raise ConfigError(
                f"{name}{depth}: its depth must be {self.rule}; the nearest are {name}{below} and {name}{above}"
            )
        return self.at_depth(depth).config()

    def allows(self, depth: int) -> bool:
        """Whether the family has a network of that depth."""
        return depth >= self.first and any((depth - 2) % step == 0 for step in self.steps)


def _imagenet(depths: tuple[int, ...], **choices: Any) -> Settings:
    """Four stages of widths 64, 128, 256, 512 (He et al. 2015, Table 1)."""
    return Settings("resnet", {"depths": depths, "widths": (64, 128, 256, 512), **choices})


def _deep(depths: tuple[int, ...], **choices: Any) -> Settings:
    """ResNet-D: a stem of three 3×3 convolutions, and averaging before projections (He et al. 2018, §4)."""
    return _imagenet(depths, stem="deep", projection_pool=True, **choices)


def _small(depths: tuple[int, ...], widths: tuple[int, ...], **choices: Any) -> Settings:
    """A stem that keeps the map, ten classes, 32 pixels."""
    small: dict[str, Any] = {"stem": "cifar", "stem_width": 16, "num_classes": 10, "image_size": 32}
    return Settings("resnet", {"depths": depths, "widths": widths, **small, **choices})


def _vgg(*depths: int, **choices: Any) -> Settings:
    """Simonyan & Zisserman 2014, arXiv:1409.1556, Table 1: so many 3×3 convolutions before each max-pool."""
    return Settings("vgg", {"depths": depths, **choices})


def _cifar(shortcut: "ShortcutOption | None") -> Callable[[int], Settings]:
    """He et al. 2015, §4.2: three stages of 2n layers with 16, 32 and 64 channels, and option A."""
    return lambda depth: _small(((depth - 2) // 6,) * 3, (16, 32, 64), shortcut=shortcut)


def _cifar_preact(depth: int) -> Settings:
    """He et al. 2016, arXiv:1603.05027, §3 and §5: basic blocks at 6n + 2 layers, bottlenecks at 9n + 2.

    A depth that fits both has, as in the paper, basic blocks up to 110 layers and bottlenecks from 164 on.
    """
    fits_both = (depth - 2) % 18 == 0
    if (depth - 2) % 9 == 0 and not (fits_both and depth < 164):
        # The authors' code has the stride in the first 1×1 convolution.
        return _small(((depth - 2) // 9,) * 3, (16, 32, 64), order="pre", branch="bottleneck", stride_in="1x1")
    return _small(((depth - 2) // 6,) * 3, (16, 32, 64), order="pre")


def _wide(depth: int, factor: int) -> Settings:
    """Zagoruyko & Komodakis 2016, arXiv:1605.07146, Table 1: 6n + 4 layers, pre-activation, widths times ``factor``."""
    return _small(((depth - 4) // 6,) * 3, (16 * factor, 32 * factor, 64 * factor), order="pre")


def _mlp(shortcut: "ShortcutOption | None") -> Callable[[int], Settings]:
    return lambda depth: Settings("mlp", {"depth": depth, "shortcut": shortcut})


def _wide_branches(groups: int, base_width: int) -> dict[str, Any]:
    """ResNeXt: bottlenecks of ``groups`` groups, each of ``base_width``/64 of the width."""
    return {"branch": "bottleneck", "groups": groups, "base_width": base_width}


_18, _34, _50, _101, _152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
_BOTTLENECK: dict[str, Any] = {"branch": "bottleneck"}
_26, _200, _269 = (2, 2, 2, 2), (3, 24, 36, 3), (3, 30, 48, 8)
_PRE: dict[str, Any] = {"order": "pre"}
_SE: dict[str, Any] = {"se_reduction": 16}
# timm's: 32 groups, however wide the map.
_GROUPS: dict[str, Any] = {"norm": "group", "norm_groups": 32}
# The stem of ResNet-D without its averages; that of ResNet-S is twice as wide (He et al. 2018, §4, and GluonCV).
_C: dict[str, Any] = {"stem": "deep", **_BOTTLENECK}
_S: dict[str, Any] = {"stem": "deep", "stem_width": 128, **_BOTTLENECK}

ROWS = Registry[Row](
    "model",
    {
        "plain18": Row(settings=_imagenet(_18, shortcut=None), parameters=11_515_688),
        "plain34": Row(settings=_imagenet(_34, shortcut=None), parameters=21_623_848),
        "resnet18": Row(settings=_imagenet(_18), parameters=11_689_512),
        "resnet34": Row(settings=_imagenet(_34), parameters=21_797_672),
        "resnet26": Row(settings=_imagenet(_26, **_BOTTLENECK), parameters=15_995_176),
        "resnet50": Row(settings=_imagenet(_50, **_BOTTLENECK), parameters=25_557_032),
        "resnet101": Row(settings=_imagenet(_101, **_BOTTLENECK), parameters=44_549_160),
        "resnet152": Row(settings=_imagenet(_152, **_BOTTLENECK), parameters=60_192_808),
        "resnet200": Row(settings=_imagenet(_200, **_BOTTLENECK), parameters=64_673_832),
        "resnet50_gn": Row(settings=_imagenet(_50, **_BOTTLENECK, **_GROUPS), parameters=25_557_032),
        "resnet50c": Row(settings=_imagenet(_50, **_C), parameters=25_576_264),
        "resnet101c": Row(settings=_imagenet(_101, **_C), parameters=44_568_392),
        "resnet152c": Row(settings=_imagenet(_152, **_C), parameters=60_212_040),
        "resnet50s": Row(settings=_imagenet(_50, **_S), parameters=25_680_808),
        "resnet101s": Row(settings=_imagenet(_101, **_S), parameters=44_672_936),
        "resnet152s": Row(settings=_imagenet(_152, **_S), parameters=60_316_584),
        "resnetv2_18": Row(settings=_imagenet(_18, **_PRE), parameters=11_687_720),
        "resnetv2_34": Row(settings=_imagenet(_34, **_PRE), parameters=21_795_880),
        "resnetv2_50": Row(settings=_imagenet(_50, **_PRE, **_BOTTLENECK), parameters=25_549_352),
        "resnetv2_101": Row(settings=_imagenet(_101, **_PRE, **_BOTTLENECK), parameters=44_541_480),
        "resnetv2_152": Row(settings=_imagenet(_152, **_PRE, **_BOTTLENECK), parameters=60_185_128),
        "resnetv2_18d": Row(settings=_deep(_18, **_PRE), parameters=11_706_952),
        "resnetv2_34d": Row(settings=_deep(_34, **_PRE), parameters=21_815_112),
        "resnetv2_50d": Row(settings=_deep(_50, **_PRE, **_BOTTLENECK), parameters=25_568_584),
        "resnetv2_101d": Row(settings=_deep(_101, **_PRE, **_BOTTLENECK), parameters=44_560_712),
        "resnetv2_152d": Row(settings=_deep(_152, **_PRE, **_BOTTLENECK), parameters=60_204_360),
        "resnetv2_50d_gn": Row(settings=_deep(_50, **_PRE, **_BOTTLENECK, **_GROUPS), parameters=25_568_584),
        "resnet18d": Row(settings=_deep(_18), parameters=11_708_744),
        "resnet34d": Row(settings=_deep(_34), parameters=21_816_904),
        "resnet26d": Row(settings=_deep(_26, **_BOTTLENECK), parameters=16_014_408),
        "resnet50d": Row(settings=_deep(_50, **_BOTTLENECK), parameters=25_576_264),
        "resnet101d": Row(settings=_deep(_101, **_BOTTLENECK), parameters=44_568_392),
        "resnet152d": Row(settings=_deep(_152, **_BOTTLENECK), parameters=60_212_040),
        "resnet200d": Row(settings=_deep(_200, **_BOTTLENECK), parameters=64_693_064),
        "wide_resnet50_2": Row(settings=_imagenet(_50, **_BOTTLENECK, base_width=128), parameters=68_883_240),
        "wide_resnet101_2": Row(settings=_imagenet(_101, **_BOTTLENECK, base_width=128), parameters=126_886_696),
        "resnext50_32x4d": Row(settings=_imagenet(_50, **_wide_branches(32, 4)), parameters=25_028_904),
        "resnext50d_32x4d": Row(settings=_deep(_50, **_wide_branches(32, 4)), parameters=25_048_136),
        "resnext101_32x4d": Row(settings=_imagenet(_101, **_wide_branches(32, 4)), parameters=44_177_704),
        "resnext101_32x8d": Row(settings=_imagenet(_101, **_wide_branches(32, 8)), parameters=88_791_336),
        "resnext101_64x4d": Row(settings=_imagenet(_101, **_wide_branches(64, 4)), parameters=83_455_272),
        "seresnet18": Row(settings=_imagenet(_18, **_SE), parameters=11_779_624),
        "seresnet34": Row(settings=_imagenet(_34, **_SE), parameters=21_960_416),
        "seresnet50": Row(settings=_imagenet(_50, **_BOTTLENECK, **_SE), parameters=28_088_024),
        "seresnet101": Row(settings=_imagenet(_101, **_BOTTLENECK, **_SE), parameters=49_326_872),
        "seresnet152": Row(settings=_imagenet(_152, **_BOTTLENECK, **_SE), parameters=66_821_848),
        "seresnet152d": Row(settings=_deep(_152, **_BOTTLENECK, **_SE), parameters=66_841_080),
        "seresnet200d": Row(settings=_deep(_200, **_BOTTLENECK, **_SE), parameters=71_855_096),
        "seresnet269d": Row(settings=_deep(_269, **_BOTTLENECK, **_SE), parameters=113_672_760),
        "seresnext26d_32x4d": Row(settings=_deep(_26, **_wide_branches(32, 4), **_SE), parameters=16_809_512),
        "seresnext50_32x4d": Row(settings=_imagenet(_50, **_wide_branches(32, 4), **_SE), parameters=27_559_896),
        "seresnext101_32x4d": Row(settings=_imagenet(_101, **_wide_branches(32, 4), **_SE), parameters=48_955_416),
        "seresnext101_32x8d": Row(settings=_imagenet(_101, **_wide_branches(32, 8), **_SE), parameters=93_569_048),
        "seresnext101d_32x8d": Row(settings=_deep(_101, **_wide_branches(32, 8), **_SE), parameters=93_588_280),
        "seresnext101_64x4d": Row(settings=_imagenet(_101, **_wide_branches(64, 4), **_SE), parameters=88_232_984),
        "wide_resnet16_4": Row(settings=_wide(16, 4), parameters=2_748_890),
        "wide_resnet16_8": Row(settings=_wide(16, 8), parameters=10_961_370),
        "wide_resnet28_10": Row(settings=_wide(28, 10), parameters=36_479_194),
        "wide_resnet40_4": Row(settings=_wide(40, 4), parameters=8_949_210),
        "vgg11": Row(settings=_vgg(1, 1, 2, 2, 2), parameters=132_863_336),
        "vgg13": Row(settings=_vgg(2, 2, 2, 2, 2), parameters=133_047_848),
        "vgg16": Row(settings=_vgg(2, 2, 3, 3, 3), parameters=138_357_544),
        "vgg19": Row(settings=_vgg(2, 2, 4, 4, 4), parameters=143_667_240),
        "vgg11_bn": Row(settings=_vgg(1, 1, 2, 2, 2, norm=True), parameters=132_868_840),
        "vgg13_bn": Row(settings=_vgg(2, 2, 2, 2, 2, norm=True), parameters=133_053_736),
        "vgg16_bn": Row(settings=_vgg(2, 2, 3, 3, 3, norm=True), parameters=138_365_992),
        "vgg19_bn": Row(settings=_vgg(2, 2, 4, 4, 4, norm=True), parameters=143_678_248),
    },
)

_CIFAR_DEPTHS = (8, 20, 32, 44, 56, 110, 128, 1202)
_MLP_DEPTHS = (8, 34, 128, 1000)

FAMILIES = {
    "cifar_plain": Family(at_depth=_cifar(None), first=8, steps=(6,), rule="6n + 2", listed=_CIFAR_DEPTHS),
    "cifar_resnet": Family(at_depth=_cifar("A"), first=8, steps=(6,), rule="6n + 2", listed=_CIFAR_DEPTHS),
    "cifar_preact_resnet": Family(
        at_depth=_cifar_preact, first=8, steps=(6, 9), rule="6n + 2 or 9n + 2", listed=(20, 56, 110, 164, 1001)
    ),
    "mlp_plain": Family(at_depth=_mlp(None), first=2, steps=(1,), rule="2 or more", listed=_MLP_DEPTHS),
    "mlp_resnet": Family(at_depth=_mlp("B"), first=2, steps=(1,), rule="2 or more", listed=_MLP_DEPTHS),
}


MOST_DIGITS = 5
"""Most digits of a depth; guards against typing errors: no machine could hold a deeper network."""


def listed_names(pattern: str = "*") -> list[str]:
    """Every row, and of each family of free depth the usual depths, where they match the shell pattern."""
    names = [*ROWS, *(f"{name}{depth}" for name, family in FAMILIES.items() for depth in family.listed)]
    return [name for name in names if fnmatchcase(name, pattern)]


def model_config(name: str, **overrides: Any) -> "NetConfig":
    """The configuration of a named network, with some of its fields replaced.

    Other projects' names of a field are taken where they mean the same (``habits.SETTINGS``).

    Raises ``ConfigError`` for an unknown name or field, with the nearest ones, for a value of another type,
    and for a plain net that could not begin to learn.
    """
    config = _named_config(name)
    known = [field.name for field in fields(config)]
    settings = {}
    for given, value in overrides.items():
        key = our_setting(name, given, known)
        settings[key] = _fit_type(config, key, value)
    made = replace(config, **settings)
    made.check_scaling()
    return made


def _fit_type(config: "NetConfig", key: str, value: Any) -> Any:
    """``value`` converted to the type of the setting: a list to a tuple, 1 to 1.0, but no text to a number.

    A wrong word where a word is expected passes too: the configuration's own check names the right ones.
    """
    default = getattr(config, key)
    if isinstance(value, str) and (default is None or isinstance(default, str)):
        return value
    try:
        return from_plain(get_type_hints(type(config))[key], value, key)
    except DataError:
        raise ConfigError(f"{key}={value!r} is not possible: it must be like {default!r}") from None


def _named_config(name: str) -> "NetConfig":
    if name in ROWS:
        return ROWS[name].config
    family = name.rstrip("0123456789")
    depth = name.removeprefix(family)
    if family in FAMILIES and 0 < len(depth) <= MOST_DIGITS and not depth.startswith("0"):
        return FAMILIES[family].config(family, int(depth))
    raise _unknown_depth(name) or unknown_name("model", name, listed_names())


def _unknown_depth(name: str) -> ConfigError | None:
    """The error for a name that differs from a known one in its depth alone: any depth can be built all the same."""
    parts = re.fullmatch(r"(\D*?v2_|\D+)(\d{1,5})(\D.*)?", name)
    if parts is None:
        return None
    start, depth, end = parts[1], int(parts[2]), parts[3] or ""
    known = [row for row in ROWS if re.fullmatch(rf"{re.escape(start)}\d+{re.escape(end)}", row)]
    if not known:
        return None
    nearest = min(known, key=lambda row: abs(int(row.removeprefix(start).removesuffix(end)) - depth))
    depths = list(ROWS[nearest].settings.choices["depths"])
    return ConfigError(
        f"unknown model {name!r}; the nearest depth is {nearest!r}, and any other can be built from it by the blocks "
        f"of its stages: create_model({nearest!r}, depths={depths}), or --model {nearest} --options depths '{depths}'"
    )


def config_to_plain(config: object) -> dict[str, Any]:
    """The configuration as plain data, which JSON can hold and ``config_from_plain`` reads.

    Raises ``ConfigError`` for what is no configuration of ours.
    """
    for name, kind in kinds().items():
        if type(config) is kind:
            return {"kind": name, **as_plain(config)}
    raise ConfigError(f"{type(config).__name__} is no configuration of resnetlab; build the network with create_model")


def config_from_plain(plain: Mapping[str, Any], origin: str = "the configuration") -> "NetConfig":
    """The configuration that ``config_to_plain`` gave; ``build`` makes the network of it.

    Raises ``ConfigError`` for an unknown kind, and ``DataError`` naming ``origin`` for wrong keys or types.
    """
    kind = str(plain.get("kind"))
    known = kinds()
    if kind not in known:
        raise unknown_name("kind of network", kind, known)
    return from_plain(known[kind], {key: value for key, value in plain.items() if key != "kind"}, origin)
