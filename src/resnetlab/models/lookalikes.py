"""Networks whose names and shapes agree though they compute other things, and what weights say of their architecture.

Names and shapes tell no stride, no pooling, no activation and no padding. What a checkpoint or the ``config.json``
beside it says is believed: a network that contradicts it is refused. Where nothing says it, nobody can know.
"""

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from torch import nn

from resnetlab.core.errors import CheckpointError, ConfigError, DataError, printable
from resnetlab.models.architectures import LIBRARY, config_from_plain, model_config
from resnetlab.models.config import NetConfig, ResidualConfig
from resnetlab.models.init import build
from resnetlab.models.key_mapping import head_names, their_names
from resnetlab.models.resnet import ResNetConfig
from resnetlab.models.state_dicts import StateDict

UNKNOWN = "names and shapes fit, but nothing says its architecture: that it computes the same cannot be known from them"

LOOK_ALIKES = (
    (r".*(?:blur|resnetaa|_aa).*", "it blurs its maps before every stride"),
    (
        r"(?:fcn|deeplabv3|lraspp|maskrcnn|fasterrcnn|keypointrcnn|retinanet)_.*",
        "its last stages may be dilated",
    ),
    (r"resnetv2_\d+x\d.*|.*_bit", "its convolutions standardise their weights"),
    (r".*caffe.*|resnet\d+_?v1", "its stride is in the first 1×1 convolution of a block"),
)
"""Names of networks, by a pattern, and how each differs from the one whose names and shapes it has."""

_SAME = (
    (r"(?:tv|ssl|swsl|ig|gluon|fb)_(res.*?)(?:_v1b)?", r"\1"),
    (r"(?:gluon_)?(resnet\d+)_v1b(?:_gap)?", r"\1"),
    (r"(?:gluon_)?(resnet\d+)_v1([cds])", r"\1\2"),
    (r"gluon_(seres.*)", r"\1"),
)
"""Names that timm gave before the one that it gives now."""

_FIXUP = {"norm": "none", "scaling": "fixup_scalar"}

_IDLE = {
    *("num_classes", "in_chans", "image_size", "init", "zero_init_residual", "scale_residual", "stochastic_depth"),
    *("dirac_noise", "tailored_slope"),
    *("dropout", "stem", "stem_width", "stem_stride", "strides", "pad", "norm_eps", "norm_groups", "branch"),
    *("bias_before_norm", "final_norm", "stem_pool", "stem_pool_zeros"),
}
"""Settings that change no output of a trained network, or that change it in some networks only (``_function``)."""


def judge(state: StateDict, model: nn.Module, dialect: str) -> str:
    """What is known of the architecture of these weights, in words.

    Raises ``CheckpointError`` where they say another one than that of ``model``, or that of a known look-alike.
    """
    config = model.config
    assert isinstance(config, NetConfig)
    if isinstance(state.config.get(LIBRARY), dict) or state.config.get("library_name") == LIBRARY:
        # Of a bundle under our name, beside what other libraries read; before bundles had classes, the file itself.
        plain = state.config.get(LIBRARY) or {k: v for k, v in state.config.items() if k != "library_name"}
        try:
            named = config_from_plain(plain, "config.json")
        except (ConfigError, DataError) as error:
            raise CheckpointError(f"the config.json beside it: {error}") from error
        _refuse_difference(config, [named], "the config.json beside it", "a network of resnetlab")
        return "config.json says the same architecture"
    if not state.stated:
        return UNKNOWN
    name = printable(state.stated)
    beside = state.stated == state.config.get("architecture")
    place = "the config.json beside it" if beside else "it"
    if beside and state.config.get("model_args"):
        return (
            f"config.json says that it is a {name} with options of its own: that it computes the same cannot be known"
        )
    for pattern, how in LOOK_ALIKES:
        if re.fullmatch(pattern, _plain_name(state.stated)):
            raise CheckpointError(f"{place} says that it is a {name}, whose names and shapes look alike, but {how}")
    found = list(_named(state.stated, dialect, config))
    if not found:
        if beside:
            raise CheckpointError(
                f"{place} says that it is a {name}, which is none of resnetlab's networks; if you know that it "
                "computes the same, load the weights without that file"
            )
        return f"it says that it is a {name}, a name not known here: that it computes the same cannot be known"
    fitting = [named for named in found if _fits(state, named, dialect)]
    if not fitting:
        return f"it says that it is a {name} and has other shapes: that it computes the same cannot be known"
    _refuse_difference(config, fitting, place, f"a {name}")
    return f"{'config.json' if beside else 'it'} says that it is a {name}"


def _plain_name(stated: str) -> str:
    """Without the tag, the owner and the case of a name."""
    name = re.sub(r"\.[a-z]\w*$", "", stated.rpartition("/")[2].lower())
    for pattern, same in _SAME:
        name = re.sub(f"^{pattern}$", same, name)
    return name


def _named(stated: str, dialect: str, config: NetConfig) -> Iterator[NetConfig]:
    """The networks that a name may mean among those of the project that the weights come from."""
    name = _plain_name(stated)
    small = re.fullmatch(r"(preact)?_?resnet_?(\d+)(_noshort)?", name)
    cifar = {"stem": "cifar", "image_size": 32}
    tries: list[tuple[str, dict[str, Any]]] = [(name, {})]
    if dialect in ("akamaster", "loss-landscape", "kuangliu", "weiaicunzai") and small:
        depth, plain = small[2], {"shortcut": None} if small[3] else {}
        tries = [
            (f"cifar_resnet{depth}", {"pad": "center"} | plain),
            (f"cifar_resnet{depth}", {"shortcut": "B"} | plain),
        ]
        tries += [(f"resnet{depth}", cifar | plain)]
        if small[1]:
            tries = [(f"resnetv2_{depth}", cifar | {"final_norm": False})]
    elif dialect == "torchvision" and isinstance(config, ResNetConfig) and config.stem_kind == "cifar":
        # A script that names a net of torchvision and gives it the stem of small images.
        tries += [(name, cifar)]
    elif dialect == "fixup":
        tries = [(f"cifar_resnet{number}", _FIXUP) for number in re.findall(r"\d+", name)]
        tries += [(f"resnet{number}", _FIXUP) for number in re.findall(r"\d+", name)]
    for known, settings in tries:
        try:
            yield model_config(known, **settings)
        except ConfigError:
            continue


def _fits(state: StateDict, config: NetConfig, dialect: str) -> bool:
    """Whether the weights have the shapes of that network, but for its head and its number of input channels."""
    net = build(config, seed=0, device="meta")
    try:
        names, heads = their_names(net, dialect), head_names(net, dialect)
    except ConfigError:
        return False
    known = {theirs.name for theirs in names.values()}
    if any(len(entry.shape) == 4 and name not in known for name, entry in state.entries.items()):
        return False
    for name, shape, _ in names.values():
        entry = state.entries.get(name)
        if name in heads or entry is None or len(entry.shape) != len(shape):
            continue
        other = [at for at, (given, wanted) in enumerate(zip(entry.shape, shape, strict=True)) if given != wanted]
        if other and not (other == [1] and len(shape) == 4):
            return False
    return all(theirs.name in state.entries for own, theirs in names.items() if own.endswith("conv1.weight"))


def _refuse_difference(config: NetConfig, named: list[NetConfig], place: str, what: str) -> None:
    """Raise ``CheckpointError`` unless one of the named configurations computes what ``config`` does."""
    found = [_differences(config, other) for other in named]
    if not all(found):
        return
    setting, given, wanted = min(found, key=len)[0]
    raise CheckpointError(
        f"{place} says that it is {what}, which has {setting}={wanted!r}, and this network has {given!r}: the same "
        f"weights would give another result; build it with create_model(…, {setting}={wanted!r})"
    )


def same_function(config: NetConfig, other: NetConfig) -> bool:
    """Whether two networks compute the same from the same weights."""
    return not _differences(config, other)


def _differences(config: NetConfig, other: NetConfig) -> list[tuple[str, Any, Any]]:
    """The settings in which two networks compute different things from the same weights."""
    if type(config) is not type(other):
        return [("kind", type(config).__name__, type(other).__name__)]
    ours, theirs = _function(config), _function(other)
    shared = [setting for setting in ours if setting in theirs]
    return [(setting, ours[setting], theirs[setting]) for setting in shared if ours[setting] != theirs[setting]]


def _function(config: NetConfig) -> dict[str, Any]:
    """The settings that decide what a trained network computes, each in one form."""
    found = {field.name: getattr(config, field.name) for field in fields(config) if field.name not in _IDLE}
    # The one start that says an activation too.
    slope = config.slope if isinstance(config, ResidualConfig) and config.init == "tat" else None
    found |= {"init": "he" if slope is None else "tat", "tailored_slope": slope}
    if isinstance(config, ResNetConfig):
        small, normed = config.stem_kind == "cifar", config.norm != "none"
        found |= {
            "branch": config.branch,
            "stem": config.stem_kind,
            "stem_width": config.first_width,
            "stem_pool": config.stem_pool and not small,
            "stem_pool_zeros": config.stem_pool_zeros and config.stem_pool and not small,
            "strides": config.stage_strides,
            "stem_stride": config.first_stride,
            "norm_eps": config.norm_eps if normed else None,
            "norm_groups": config.norm_groups if config.norm == "group" else None,
            "bias_before_norm": config.bias_before_norm if config.conv_bias else None,
            "final_norm": config.final_norm or config.order == "post",
        }
    if getattr(config, "shortcut", None) == "A":
        found["pad"] = getattr(config, "pad", None)
    return dict(sorted(found.items()))
