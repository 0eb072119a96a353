"""Where in an image is what a network's answer rests on? Grad-CAM, Selvaraju et al. 2017, arXiv:1610.02391."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError, require, unknown_name
from resnetlab.data.dataset import ImageData
from resnetlab.data.decode import decode
from resnetlab.diagnostics.context import Context
from resnetlab.diagnostics.load import UNTRAINED, DiagnosedNet
from resnetlab.diagnostics.sentences import BROKEN
from resnetlab.models.classifier import Classifier
from resnetlab.records.diagnosis import HALF, LARGEST_IMAGE, CamResult, Diagnosis, Finding, NetResult
from resnetlab.train.evaluate import brighten, encode_png, eval_mode

COMPARED = ("plain",)

CamVerdict = Literal["focused", "between", "spread", "coarse", "blank", "broken"]

FOCUSED, SPREAD, FEW = 0.25, 0.5, 4
CLASSES = 8
"""Images shown where none are named: the first of each class, for this many classes at most."""

RULE = (
    "The heat of a cell of the map is how much it supports the predicted class (Selvaraju et al. 2017, eq. 1 and 2). A "
    f"cell is warm if its heat is at least {HALF:.0%} of the map's largest. Warm cells cover, in the median image, at "
    f"most {FOCUSED:.0%} of the map: focused; at least {SPREAD:.0%}: spread; else between. Maps of fewer than {FEW} "
    "cells a side locate too little: coarse. No heat in half of the images or more: blank; not finite: broken. "
    f"By default the images are the first of each class, for at most {CLASSES} classes."
)
ADVICE = {
    "coarse": "So few cells locate little: take an earlier layer (--cam-layer stages.0), or larger images.",
    "blank": "No region of these maps supports the predictions: an earlier layer (--cam-layer stages.0) may show more.",
    "broken": BROKEN,
}


def applies(net: DiagnosedNet, context: Context) -> str | None:
    """A trained network is needed whose last stage gives maps, or the layer that was named.

    Raises ``ConfigError`` for images and layers that are not there, and ``DataError`` for files that cannot be read.
    """
    if not net.trained:
        return UNTRAINED
    image = torch.zeros(1, *net.data.train.shape, device=net.device)
    if not gives_maps(net.net, image):
        return "its last stage gives no maps that could be laid over an image"
    chosen_samples(net.data, context)
    for path in context.config.image:
        own_image(path, net.data)
    if context.config.cam_layer is not None:
        assert isinstance(net.net, Classifier)
        cell_cam(net.net, image, context.config.cam_layer)
    return None


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """What the answers to images of the reported split, and to the user's own, rest on."""
    assert isinstance(net.net, Classifier)
    data, paths = net.data, context.config.image
    samples = chosen_samples(data, context)
    own = [own_image(path, data)[None] for path in paths]
    images = torch.cat([*([next(data.reported.batches([torch.tensor(samples)]))] if samples else []), *own])
    heats, logits = cell_cam(
        net.net, data.normalisation.on(net.device)(images.to(net.device)), context.config.cam_layer
    )
    probabilities, answers = logits.double().softmax(dim=1).max(dim=1)
    names = data.reported.names
    known = [
        (sample, names[sample] if names else None, data.classes[int(data.reported.labels[sample])])
        for sample in samples
    ]
    cams = [
        CamResult(
            sample=sample,
            name=name,
            true=true,
            predicted=data.classes[answer] if isfinite(probability) else None,
            probability=probability if isfinite(probability) else None,
            heat=[[value if isfinite(value) else None for value in row] for row in heat],
            image=encode_png(image, LARGEST_IMAGE),
        )
        for (sample, name, true), heat, answer, probability, image in zip(
            [*known, *((None, path.name, None) for path in paths)],
            heats.tolist(),
            answers.tolist(),
            probabilities.tolist(),
            brighten(_grey_levels(images)),
            strict=True,
        )
    ]
    return replace(result, cams=cams)


def chosen_samples(data: ImageData, context: Context) -> list[int]:
    """The numbers of images of the reported split: those named, else the first of each of some classes, and none beside
    files of the user's. Raises ``ConfigError`` for a number that no image has."""
    named, last = context.config.cam_images, len(data.reported) - 1
    for number in named:
        require(
            number <= last,
            "cam_images",
            number,
            f"from 0 to {last}, as there are {last + 1} {data.reported_split} images",
        )
    if named or context.config.image:
        return list(dict.fromkeys(named))
    first: dict[int, int] = {}
    for number, label in enumerate(data.reported.labels.tolist()):
        first.setdefault(label, number)
    return [first[label] for label in sorted(first)[:CLASSES]]


def own_image(path: Path, data: ImageData) -> Tensor:
    """An image file as the data's own are: uint8 ``(C, H, W)``, cut to their size and in their range of grey levels.

    Raises ``DataError`` where it cannot be read, ``ConfigError`` for data that are no grey or RGB images of uint8.
    """
    example = next(data.train.batches([torch.tensor([0])]))
    if data.in_chans not in (1, 3) or example.dtype != torch.uint8:
        raise ConfigError(f"--image {path} is not possible: {data.source} has no grey or RGB images of uint8")
    pixels = decode(path, data.image_size)
    if data.in_chans == 3:
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    grey = torch.frombuffer(bytearray(Image.fromarray(pixels).convert("L").tobytes()), dtype=torch.uint8)
    # As in ``brighten``, the other way: digits have grey levels from 0 to 16.
    return grey.view(1, *pixels.shape[:2]) // (255 // max(1, data.train.brightest))


def _grey_levels(images: Tensor) -> Tensor:
    """Images of other numbers than uint8 as uint8, their whole range spread from black to white."""
    if images.dtype == torch.uint8:
        return images
    low, high = images.min(), images.max()
    return ((images - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)


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


def judge(cams: Sequence[CamResult]) -> CamVerdict:
    """The verdict by ``RULE`` on at least one image."""
    if any(heat is None for cam in cams for row in cam.heat for heat in row):
        return "broken"
    shares = [cam.warm for cam in cams]
    warm = [share for share in shares if share is not None]
    if 2 * len(warm) <= len(shares):
        return "blank"
    if min(cams[0].cells) < FEW:
        return "coarse"
    share = median(warm)
    return "focused" if share <= FOCUSED else "spread" if share >= SPREAD else "between"


def explain(diagnosis: Diagnosis) -> Finding:
    """Which answers were right, and how much of the map they rest on."""
    net = diagnosis.net
    verdict = judge(net.cams)
    sentences = []
    for one in (net, diagnosis.plain):
        if one and one.cams:
            sentences += _sentences(one.label, one.cams, diagnosis.split)
    advice = [ADVICE[verdict]] if verdict in ADVICE else []
    wrong = [cam for cam in net.cams if cam.right is False]
    if wrong:
        advice.append(
            f"Wrong predictions: {_named(wrong)}. Look at what is warm there: if it is the background, not the object, "
            "train with crops closer to the object, or with images of the class on other backgrounds."
        )
    return Finding(analysis="cam", verdict=verdict, sentences=sentences, advice=advice, rule=RULE)


def _sentences(label: str, cams: Sequence[CamResult], split: str) -> list[str]:
    high, wide = cams[0].cells
    known = [cam for cam in cams if cam.right is not None]
    maps = f"the maps have {high} × {wide} cells."
    lines = [f"{label}: {maps}"]
    if known:
        right = sum(cam.right is True for cam in known)
        lines = [f"{label}: {right} of {len(known)} {split} images are predicted correctly ({_named(known)}); {maps}"]
    for cam in cams:
        if cam.sample is None and cam.probability is not None:
            lines.append(f"{label}: image {cam.label} is predicted as {cam.predicted} ({cam.probability:.1%}).")
    warm = [cam.warm for cam in cams if cam.warm is not None]
    if warm:
        lines.append(f"{label}: {median(warm):.0%} of the map is warm in the median of {len(warm)} images.")
    cold = [cam for cam in cams if cam.warm is None]
    if cold:
        lines.append(f"{label}: no heat, or no finite heat, in {_named(cold)}.")
    return lines


def _named(cams: Sequence[CamResult]) -> str:
    return f"image{'' if len(cams) == 1 else 's'} {', '.join(cam.label for cam in cams)}"


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
