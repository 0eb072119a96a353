"""Where in an image is what a network's answer rests on? Grad-CAM, Selvaraju et al. 2017, arXiv:1610.02391."""

from collections.abc import Sequence
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError, require, unknown_name
from resnetlab.diagnostics.probes import eval_mode
from resnetlab.models.classifier import Classifier
from resnetlab.records.diagnosis import HALF, CamReading

CamVerdict = Literal["focused", "between", "spread", "coarse", "blank", "broken"]

FOCUSED, SPREAD, FEW = 0.25, 0.5, 4
CLASSES = 8
"""Images that are looked at where none are named: the first of each class, of so many classes at most."""

RULE = (
    "A map shows by how much each place speaks for the predicted class (Selvaraju et al. 2017, eq. 1 and 2). Warm is "
    f"what has at least {HALF:.0%} of the map's largest heat. Warm is, in the median image, at most {FOCUSED:.0%} of "
    f"the map: focused; at least {SPREAD:.0%}: spread; else between. Fewer than {FEW} cells a side tell too little "
    "about the place: coarse. No heat in half of the images or more: blank; a heat that is no finite number: broken. "
    f"Where no images were named, they are the first test image of each class, of at most {CLASSES} classes."
)


def grad_cam(
    net: Classifier, images: Tensor, classes: Sequence[int] | Tensor | None = None, layer: str | None = None
) -> Tensor:
    """Heat maps ``(N, H, W)`` in [0, 1] of ``images`` ``(N, C, H, W)``, one class for each; the predicted by default.

    With A the maps that ``layer`` gives, the last stage's by default, and y the class's logit (eq. 1 and 2):
    α_k = mean_ij ∂y/∂A_kij and L = relu(Σ_k α_k A_k), in eval mode. L is enlarged to the image bilinearly and divided
    by its largest value; where nothing speaks for the class it is zero, and NaN where y is not finite.

    The network is left as it was. Raises ``ConfigError`` for a layer that gives no maps, as none of a fully-connected
    net does, for a class that the network does not have, and for a network without classes.
    """
    heat, _ = _raw_heat(net, images, classes, layer)
    heat = F.interpolate(heat[:, None], size=images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return _to_unit(heat)


def cell_cam(net: Classifier, images: Tensor, layer: str | None = None, most: int = 56) -> tuple[Tensor, Tensor]:
    """The map of the predicted class as the layer has it, ``(N, h, w)`` in [0, 1], and the logits ``(N, K)``.

    Of more than ``most`` cells a side several are averaged into one. Raises as ``grad_cam`` does.
    """
    heat, logits = _raw_heat(net, images, None, layer)
    if max(heat.shape[1:]) > most:
        heat = F.adaptive_avg_pool2d(heat, (min(heat.shape[1], most), min(heat.shape[2], most)))
    return _to_unit(heat), logits.detach()


def gives_maps(net: nn.Module, images: Tensor) -> bool:
    """Whether the last stage of ``net`` gives maps ``(N, K, h, w)``, which can be laid over images."""
    if not isinstance(net, Classifier):
        return False
    with eval_mode(net), torch.no_grad():
        return net.forward_features(images).dim() == 4


def judge(readings: Sequence[CamReading]) -> CamVerdict:
    """The verdict by ``RULE`` on at least one image."""
    if any(heat is None for reading in readings for row in reading.heat for heat in row):
        return "broken"
    shares = [reading.warm for reading in readings]
    warm = [share for share in shares if share is not None]
    if 2 * len(warm) <= len(shares):
        return "blank"
    if min(readings[0].cells) < FEW:
        return "coarse"
    share = median(warm)
    return "focused" if share <= FOCUSED else "spread" if share >= SPREAD else "between"


def _raw_heat(
    net: Classifier, images: Tensor, classes: Sequence[int] | Tensor | None, layer: str | None
) -> tuple[Tensor, Tensor]:
    """L as the layer has it, ``(N, h, w)``, and the logits ``(N, K)`` that it explains."""
    require(net.config.num_classes > 0, "num_classes", 0, "at least 1: features answer nothing that could be explained")
    with eval_mode(net):
        maps, logits = _last_maps(net, images) if layer is None else _maps_of(net, images, layer)
    wanted = logits.argmax(dim=1) if classes is None else _checked(classes, logits)
    with torch.enable_grad():
        score = logits.gather(1, wanted.view(-1, 1)).sum()
    # In eval mode no image sees another: the gradient of the sum is that of each.
    (gradient,) = torch.autograd.grad(score, maps)
    return raw_cam(maps.detach(), gradient), logits


def raw_cam(maps: Tensor, gradient: Tensor) -> Tensor:
    """relu(Σ_k α_k A_k) with α_k = mean_ij ∂y/∂A_kij: ``(N, K, h, w)`` twice to ``(N, h, w)``."""
    alpha = gradient.mean(dim=(2, 3), keepdim=True)
    return F.relu((alpha * maps).sum(dim=1))


def _last_maps(net: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """What ``forward_features`` gives, and the logits that follow from it."""
    with torch.no_grad():
        maps = _require_maps(net, net.forward_features(images), None)
    with torch.enable_grad():
        maps = maps.detach().requires_grad_()
        return maps, net.forward_head(maps)


def _maps_of(net: Classifier, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """What the layer of that name gives, and the logits that follow from it."""
    modules = {name: module for name, module in net.named_modules() if name}
    if layer not in modules:
        raise unknown_name("layer", layer, modules)
    kept: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        kept.append(_require_maps(net, out, layer).detach().requires_grad_())
        return kept[-1]

    handle = modules[layer].register_forward_hook(cut)
    try:
        # Without a gradient for weights, nothing is kept of what comes before the layer.
        with torch.enable_grad():
            weights = {name: parameter.detach() for name, parameter in net.named_parameters()}
            logits: Tensor = functional_call(net, weights, (images,))
    finally:
        handle.remove()
    return kept[0], logits


def _require_maps(net: Classifier, out: Tensor, layer: str | None) -> Tensor:
    if out.dim() != 4:
        raise ConfigError(
            f"{layer or 'the last stage'} of this {type(net).__name__} gives {tuple(out.shape)}, no maps (N, K, h, w) "
            "that could be laid over an image; choose a layer before the pooling, in a convolutional network"
        )
    return out


def _checked(classes: Sequence[int] | Tensor, logits: Tensor) -> Tensor:
    wanted = torch.as_tensor(classes, device=logits.device)
    images, count = logits.shape
    fits = wanted.shape == (images,) and bool(((wanted >= 0) & (wanted < count)).all())
    require(fits, "classes", wanted.tolist(), f"one number from 0 to {count - 1} for each of {images} images")
    return wanted.long()


def _to_unit(heat: Tensor) -> Tensor:
    """Each image's map over its largest value; a map of zeros stays."""
    largest = heat.amax(dim=(1, 2), keepdim=True)
    unit = heat / torch.where(largest == 0, 1, largest)
    return torch.where(largest.isfinite(), unit, torch.nan)
