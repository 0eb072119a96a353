"""The zoo: every network by its name, with its initial weights or with trained ones."""

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from types import EllipsisType
from typing import Any

from torch import nn

from resnetlab.models.architectures import FAMILIES as FAMILIES
from resnetlab.models.architectures import ROWS as ROWS
from resnetlab.models.architectures import listed_names
from resnetlab.models.architectures import model_config as model_config
from resnetlab.models.classifier import Classifier
from resnetlab.models.features import FeatureMaps
from resnetlab.models.init import build
from resnetlab.models.pretrained import PRETRAINED, fetch
from resnetlab.models.shortcuts import ShortcutOption
from resnetlab.models.weights import load_weights

_log = logging.getLogger(__name__)


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """The names that match a shell pattern, such as ``"cifar_*"``; with ``pretrained`` the weights as ``name.tag``.

    Of a family of free depth, the usual depths are listed; ``create_model`` takes every depth that its rule allows.
    """
    if pretrained:
        return [tag for tag in PRETRAINED if fnmatchcase(tag, pattern) or fnmatchcase(tag.partition(".")[0], pattern)]
    return listed_names(pattern)


def create_model(
    name: str,
    pretrained: bool | None = None,
    *,
    num_classes: int | None = None,
    in_chans: int | None = None,
    shortcut: ShortcutOption | EllipsisType | None = ...,
    seed: int = 0,
    device: str = "cpu",
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    **overrides: Any,
) -> nn.Module:
    """The named network with its initial weights, a function of ``seed`` and of each parameter's name alone.

    ``shortcut`` is ``"A"``, ``"B"``, ``"C"``, option A with a gate (``"scaled"``, ``"gated"``, ``"highway"``,
    ``"dropout"``; ``ResidualConfig``), or None for the plain net; left out, it is the paper's choice for that name (A
    for ``cifar_resnet*``, B for ``resnet18`` … ``resnet152``). ``overrides`` are further fields of the
    network's configuration. ``device="meta"`` gives shapes without memory.

    ``pretrained=True``, or a name with a tag such as ``"resnet50.tv2_in1k"``, loads weights from the Hub (extra
    ``hub``). Another ``num_classes`` or ``in_chans`` than theirs then asks for a new head or for a fitted first
    convolution (``load_weights``), and is logged.

    ``features_only`` gives a ``FeatureMaps`` instead: no head, and for images the list of maps at ``out_indices``, by
    default all. As in timm, 0 is the stem's map and 1 that of the first stage.

    Raises ``ConfigError`` for an unknown name or setting, with the nearest ones, ``CheckpointError`` for weights that
    cannot be had or do not fit.

    >>> create_model("cifar_resnet20", num_classes=10, in_chans=1)(images)  # (N, 1, H, W) to (N, 10)
    """
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if in_chans is not None:
        overrides["in_chans"] = in_chans
    if shortcut is not ...:
        overrides["shortcut"] = shortcut
    if features_only:
        overrides["num_classes"] = 0
    plain_name, _, tag = name.partition(".")
    model = build(model_config(plain_name, **overrides), seed=seed, device=device)
    if pretrained or (tag and pretrained is None):
        new_head = features_only or num_classes is not None
        report = load_weights(model, fetch(name), reset_head=new_head, adapt_input=in_chans is not None)
        _log.log(logging.WARNING if report.adapted or report.skipped else logging.INFO, "%s", report)
    if not features_only:
        return model
    assert isinstance(model, Classifier)
    return FeatureMaps(model, out_indices)
