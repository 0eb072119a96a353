"""The names that other projects give the weights of the same networks, one table a project and kind of network.

Read off the projects' own state dicts and definitions: torchvision 0.28, timm 1.0.31, ``keras.applications`` of Keras
3, akamaster's ``pytorch_resnet_cifar10``, kuangliu's ``pytorch-cifar``, weiaicunzai's ``pytorch-cifar100``,
tomgoldstein's ``loss-landscape``, hongyi-zhang's ``Fixup``, and labml's ``ResNetBase``.

Where two networks have the same names and shapes and yet compute different things, the table says what it ``needs``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

OURS = "resnetlab"


class Rule(NamedTuple):
    """``pattern`` over our name; ``theirs``, a format of its groups and of the numbers below.

    ``layer`` is the stage from 1 on and ``after`` from 2 on, ``place`` the number of the block from 1 on and ``flat``
    over all stages, ``next`` is n + 1, ``layers`` the convolutions of a branch, and ``body`` the prefix of labml's nets
    that have a head. ``conv_at`` and ``norm_at`` are places in weiaicunzai's branch.

    Their weight is a ``kernel``×``kernel`` convolution where ours is a matrix. With ``flip`` their axes are those of
    TensorFlow: (h, w, I, O) for our (O, I, h, w), and (I, O) for (O, I).
    """

    pattern: str
    theirs: str
    kernel: int = 0
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """The rules of one dialect for one kind of network, and the settings without parameters that it implies.

    ``needs`` are the values that each setting may have there, the one to build first, and ``plain_needs`` those of a
    net without shortcuts. ``first_stride`` is the stride of the first stage; the others have the other one of 1 and 2.
    ``counters`` is whether their norms count batches. ``images`` says how their images are preprocessed, where that is
    not as torchvision does.
    """

    rules: tuple[Rule, ...]
    needs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    plain_needs: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    first_stride: int = 1
    counters: bool = True
    images: str = ""


def _in_blocks(place: str, *pairs: tuple[str, str]) -> tuple[Rule, ...]:
    start = r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\."
    return tuple(Rule(rf"{start}{ours}\.(?P<rest>.+)", f"{place}{theirs}.{{rest}}") for ours, theirs in pairs)


def _at_top(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(rf"{ours}\.(?P<rest>[^.]+)", f"{theirs}.{{rest}}") for ours, theirs in pairs)


def _as_convolution(ours: str, theirs: str, kernel: int) -> Rule:
    return Rule(rf"{ours}\.(?P<rest>[^.]+)", f"{theirs}.{{rest}}", kernel)


def _numbers_in_blocks(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    """Fixup's single numbers, which have names of their own."""
    start = r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\."
    return tuple(Rule(f"{start}{ours}", f"{_LAYER}{theirs}") for ours, theirs in pairs)


def _of_keras(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    """Keras's convolutions, norms and dense layers; ``ours`` is the layer's name, without the parameter's."""
    parts = (
        ("weight", "kernel", r"(?:.*conv\d?|head)"),
        ("bias", "bias", r"(?:.*conv\d?|head)"),
        ("weight", "gamma", r".*norm\d?"),
        ("bias", "beta", r".*norm\d?"),
        ("running_mean", "moving_mean", r".*"),
        ("running_var", "moving_variance", r".*"),
    )
    return tuple(
        Rule(rf"(?={kind}\.\w+$){ours}\.{our}", f"{theirs}/{their}", flip=their == "kernel")
        for ours, theirs in pairs
        for our, their, kind in parts
    )


_STAGE = r"stages\.(?P<stage>\d+)\.(?P<block>\d+)\."
_LAYER = "layer{layer}.{block}."
_BRANCH = ((r"branch\.conv(?P<n>\d)", "conv{n}"), (r"branch\.norm(?P<n>\d)", "bn{n}"))
_LAYERS = _in_blocks(_LAYER, *_BRANCH)
_STEM = _at_top((r"stem\.conv", "conv1"), (r"stem\.norm", "bn1"))
_DOWNSAMPLE = _in_blocks(_LAYER, (r"shortcut\.conv", "downsample.0"), (r"shortcut\.norm", "downsample.1"))
_PROJECTION = _in_blocks(_LAYER, (r"shortcut\.conv", "shortcut.0"), (r"shortcut\.norm", "shortcut.1"))
_SQUEEZE = _in_blocks(_LAYER, (r"branch\.se\.(?P<fc>fc\d)", "se.{fc}"))
_FC = _at_top(("head", "fc"))
_LINEAR = _at_top(("head", "linear"))
_FEATURES = (Rule(rf"{_STAGE}(?P<rest>[^.]+)", "features.{flat}.{rest}"),)
_DEEP_STEM = (
    *_at_top((r"stem\.conv1", "conv1.0"), (r"stem\.norm1", "conv1.1"), (r"stem\.conv2", "conv1.3")),
    *_at_top((r"stem\.norm2", "conv1.4"), (r"stem\.conv", "conv1.6"), (r"stem\.norm", "bn1")),
)
_TIMM_PRE_BLOCKS = _in_blocks(
    "stages.{stage}.blocks.{block}.",
    (r"preactivation\.norm", "norm1"),
    (r"branch\.conv(?P<n>\d)", "conv{n}"),
    (r"branch\.norm(?P<n>\d)", "norm{next}"),
    (r"shortcut\.conv", "downsample.conv"),
)

_USUAL: dict[str, tuple[Any, ...]] = {
    "shortcut": ("B",),
    "norm": ("batch",),
    "norm_eps": (1e-5,),
    "activation": ("relu",),
    # All but tat, which has an activation of its own.
    "init": ("he", "xavier", "orthogonal", "delta_orthogonal", "dirac", "looks_linear", "lsuv"),
    "stride_in": ("3x3",),
    "stride_at": ("first",),
    "stem_activation": (True,),
    "stem_pool": (True,),
    "stem_pool_zeros": (False,),
    "stem_stride": (None,),
    "projection_pool": (False,),
    "final_norm": (True,),
    "scaling": ("none",),
}
_TIMM = _USUAL | {"norm": ("batch", "group"), "norm_groups": (32,)}
_SMALL = _USUAL | {"stem_kind": ("cifar",)}
_KERAS = _USUAL | {
    "norm_eps": (1.001e-5,),
    "conv_bias": (True,),
    "branch": ("bottleneck",),
    "stem_kind": ("imagenet",),
}

TABLES: dict[tuple[str, str], Table] = {
    ("torchvision", "post"): Table(rules=_STEM + _LAYERS + _DOWNSAMPLE + _FC, needs=_USUAL),
    ("torchvision", "vgg"): Table(
        rules=_FEATURES + _at_top((r"hidden\.(?P<n>\d)", "classifier.{n}"), ("head", "classifier.6"))
    ),
    ("timm", "post"): Table(rules=_STEM + _LAYERS + _SQUEEZE + _DOWNSAMPLE + _FC, needs=_TIMM),
    ("timm", "deep"): Table(
        rules=(
            *_DEEP_STEM,
            *_LAYERS,
            *_SQUEEZE,
            # Number 0 is the average, or an identity where nothing is averaged.
            *_in_blocks(_LAYER, (r"shortcut\.conv", "downsample.1"), (r"shortcut\.norm", "downsample.2")),
            *_FC,
        ),
        needs=_TIMM | {"projection_pool": (True,)},
    ),
    # ResNet-C and ResNet-S: the stem of ResNet-D without its averages.
    ("timm", "deep-unpooled"): Table(rules=_DEEP_STEM + _LAYERS + _SQUEEZE + _DOWNSAMPLE + _FC, needs=_TIMM),
    ("timm", "pre"): Table(
        rules=(
            *_at_top((r"stem\.conv", "stem.conv"), (r"final\.norm", "norm")),
            *_TIMM_PRE_BLOCKS,
            _as_convolution("head", "head.fc", 1),
        ),
        needs=_TIMM,
    ),
    ("timm", "pre-deep"): Table(
        rules=(
            *_at_top((r"stem\.conv", "stem.conv3"), (r"stem\.conv(?P<n>\d)", "stem.conv{n}")),
            *_at_top((r"stem\.norm(?P<n>\d)", "stem.norm{n}"), (r"final\.norm", "norm")),
            *_TIMM_PRE_BLOCKS,
            _as_convolution("head", "head.fc", 1),
        ),
        needs=_TIMM | {"projection_pool": (True,)},
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
        rules=_STEM + _LAYERS + _PROJECTION + _LINEAR,
        needs=_SMALL | {"shortcut": ("A", "B", None), "pad": ("center",), "branch": ("basic",)},
    ),
    ("loss-landscape", "post"): Table(
        rules=_STEM + _LAYERS + _PROJECTION + _LINEAR,
        needs=_SMALL | {"shortcut": ("B", None)},
        # Its plain bottlenecks have no activation behind them.
        plain_needs={"branch": ("basic",)},
    ),
    ("kuangliu", "post"): Table(rules=_STEM + _LAYERS + _PROJECTION + _LINEAR, needs=_SMALL),
    ("kuangliu", "pre"): Table(
        rules=(
            *_at_top((r"stem\.conv", "conv1")),
            *_in_blocks(
                _LAYER,
                (r"preactivation\.norm", "bn1"),
                (r"branch\.conv(?P<n>\d)", "conv{n}"),
                (r"branch\.norm(?P<n>\d)", "bn{next}"),
                (r"shortcut\.conv", "shortcut.0"),
            ),
            *_LINEAR,
        ),
        needs=_SMALL | {"final_norm": (False,)},
    ),
    ("weiaicunzai", "post"): Table(
        rules=(
            *_at_top((r"stem\.conv", "conv1.0"), (r"stem\.norm", "conv1.1")),
            *_in_blocks(
                "conv{after}_x.{block}.",
                (r"branch\.conv(?P<n>\d)", "residual_function.{conv_at}"),
                (r"branch\.norm(?P<n>\d)", "residual_function.{norm_at}"),
                (r"shortcut\.conv", "shortcut.0"),
                (r"shortcut\.norm", "shortcut.1"),
            ),
            *_FC,
        ),
        needs=_SMALL,
    ),
    ("fixup", "post"): Table(
        rules=(
            *_at_top((r"stem\.conv", "conv1")),
            Rule(r"stem\.norm\.bias", "bias1"),
            Rule(r"final\.bias", "bias2"),
            *_in_blocks(_LAYER, (r"branch\.conv(?P<n>\d)", "conv{n}"), (r"shortcut\.conv", "downsample")),
            *_numbers_in_blocks(
                (r"preactivation\.bias", "bias1a"),
                (r"branch\.norm(?P<n>\d)\.bias", "bias{n}b"),
                (r"branch\.act(?P<n>\d)\.shift\.bias", "bias{next}a"),
                (r"branch\.scale\.weight", "scale"),
                (r"branch\.scale\.bias", "bias{layers}b"),
            ),
            *_FC,
        ),
        # Without a norm its settings are idle; projections at 224 pixels, zeros at 32.
        needs=_USUAL | {"norm": ("none",), "scaling": ("fixup_scalar",), "shortcut": ("A", "B"), "pad": ("append",)},
    ),
    ("labml", "post"): Table(
        rules=(
            *_at_top((r"stem\.conv", "{body}conv"), (r"stem\.norm", "{body}bn"), ("head", "1")),
            *_in_blocks("{body}blocks.{flat}.", *_BRANCH),
            *_in_blocks(
                "{body}blocks.{flat}.", (r"shortcut\.conv", "shortcut.conv"), (r"shortcut\.norm", "shortcut.bn")
            ),
        ),
        needs=_USUAL
        | {
            "stem_activation": (False,),
            "stem_pool": (False,),
            "stem_stride": (2,),
            "conv_bias": (True,),
            "bias_before_norm": (True,),
        },
        first_stride=2,
    ),
    ("keras", "post"): Table(
        rules=_of_keras(
            (r"stem\.conv", "conv1_conv"),
            (r"stem\.norm", "conv1_bn"),
            (rf"{_STAGE}branch\.conv(?P<n>\d)", "conv{after}_block{place}_{n}_conv"),
            (rf"{_STAGE}branch\.norm(?P<n>\d)", "conv{after}_block{place}_{n}_bn"),
            (rf"{_STAGE}shortcut\.conv", "conv{after}_block{place}_0_conv"),
            (rf"{_STAGE}shortcut\.norm", "conv{after}_block{place}_0_bn"),
            ("head", "predictions"),
        ),
        needs=_KERAS | {"stride_in": ("1x1",), "bias_before_norm": (True,)},
        counters=False,
        images="blue, green, red of 0 to 255, less 103.939, 116.779, 123.68",
    ),
    ("keras", "pre"): Table(
        rules=_of_keras(
            (r"stem\.conv", "conv1_conv"),
            (r"final\.norm", "post_bn"),
            (rf"{_STAGE}preactivation\.norm", "conv{after}_block{place}_preact_bn"),
            (rf"{_STAGE}branch\.conv(?P<n>\d)", "conv{after}_block{place}_{n}_conv"),
            (rf"{_STAGE}branch\.norm(?P<n>\d)", "conv{after}_block{place}_{n}_bn"),
            (rf"{_STAGE}shortcut\.conv", "conv{after}_block{place}_0_conv"),
            ("head", "predictions"),
        ),
        needs=_KERAS | {"stride_at": ("last",), "stem_pool_zeros": (True,), "bias_before_norm": (False,)},
        counters=False,
        images="0 to 255 over 127.5, less 1",
    ),
}

KERAS_LAYER = r"conv1_(?:conv|bn)|conv\d+_block\d+_(?:\d|preact)_(?:conv|bn)|post_bn|predictions"
KERAS_PART = "kernel|bias|gamma|beta|moving_mean|moving_variance"

# The first pattern that any name fits decides; torchvision's names are the ones that the others vary.
SIGNATURES = (
    (OURS, r"stages\.\d+\.\d+\.(branch\..+|weight)|stem\.linear1\.weight"),
    ("keras", rf"({KERAS_LAYER})/({KERAS_PART})"),
    ("weiaicunzai", r"conv\d_x\.\d+\.residual_function\.\d+\..+"),
    ("fixup", r"layer\d+\.\d+\.bias1a"),
    (
        "timm",
        r"stages\.\d+\.blocks\.\d+\..+|pre_logits\.fc1\..+|layer\d+\.\d+\.se\.fc\d\..+|conv1\.0\.weight",
    ),
    ("linear", r"linear\.weight|layer\d+\.\d+\.shortcut\.\d\..+"),
    ("labml", r"(0\.)?blocks\.\d+\.(conv\d|bn\d|shortcut)\..+"),
    ("torchvision", r"layer\d+\.\d+\.conv\d\.weight|features\.\d+\.weight"),
)

SAME_NAMES = {
    "torchvision": ("torchvision", "timm"),
    "akamaster": ("akamaster", "loss-landscape", "kuangliu"),
    "kuangliu": ("kuangliu", "loss-landscape", "akamaster"),
}
"""Projects whose post-activation nets have the names of another; which of them it is, the network itself decides."""

DIALECTS = (OURS, *dict.fromkeys(project for project, _ in TABLES))
