"""A network that is asked about, measured in many places: along its paths, around its weights, and over images."""

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

from resnetlab.core.errors import require
from resnetlab.diagnostics.load import Subject, has_shortcuts
from resnetlab.diagnostics.soundings import DEEP, Progress
from resnetlab.records.diagnosis import LARGEST_IMAGE, CamReading, LandscapeReading, PathReading

if TYPE_CHECKING:
    from torch import Tensor

    from resnetlab.data.dataset import ImageData


def read_paths(
    subject: Subject, images: "Tensor", labels: "Tensor", *, draws: int, seed: int, progress: Progress
) -> PathReading | None:
    """The lengths of the paths that carry the gradient of a batch; None for a net without shortcuts, which has one.

    A path keeps what every block gave. So beyond ``DEEP`` blocks fewer images are taken: as many values are kept as
    of so many blocks.
    """
    from resnetlab.diagnostics.paths import path_lengths
    from resnetlab.models.blocks import ResidualBlock

    if not has_shortcuts(subject.net):
        return None
    blocks = sum(isinstance(module, ResidualBlock) for module in subject.net.modules())
    n = max(2, len(labels) * min(DEEP, blocks) // blocks)
    with progress(f"paths of {subject.recipe.model}") as on_progress:
        return path_lengths(subject.net, images[:n], labels[:n], draws=draws, seed=seed, on_progress=on_progress)


def read_landscape(
    subject: Subject, *, side: int, reach: float, images: int, seed: int, progress: Progress
) -> LandscapeReading:
    """The loss around a network, on training images that the seed chooses: the same of a net and of its twin."""
    import torch

    from resnetlab.core.randomness import generator
    from resnetlab.data.loader import Loader
    from resnetlab.diagnostics.landscape import landscape
    from resnetlab.train.evaluate import BATCH

    data, device = subject.data, next(subject.net.parameters()).device
    order = generator(seed, "landscape pictures").permutation(len(data.train))[:images]
    only = torch.from_numpy(order).sort().values
    batches = list(Loader(data.train.to(device), data.normalisation, BATCH, only=only).in_order())
    with progress(f"loss around {subject.recipe.model}") as on_progress:
        return landscape(subject.net, batches, side=side, reach=reach, seed=seed, on_progress=on_progress)


def chosen_images(data: "ImageData", named: Sequence[int]) -> list[int]:
    """The numbers of test images that are looked at: those named, else the first of each of some classes.

    Raises ``ConfigError`` for a number that no test image has.
    """
    from resnetlab.diagnostics.cam import CLASSES

    last = len(data.reported) - 1
    for number in named:
        require(number <= last, "cam_images", number, f"from 0 to {last}, as there are {last + 1} test images")
    if named:
        return list(dict.fromkeys(named))
    first: dict[int, int] = {}
    for number, label in enumerate(data.reported.labels.tolist()):
        first.setdefault(label, number)
    return [first[label] for label in sorted(first)[:CLASSES]]


def read_cams(subject: Subject, samples: Sequence[int], layer: str | None) -> list[CamReading]:
    """What the answers to these test images rest on. Raises ``ConfigError`` where ``grad_cam`` does."""
    import torch

    from resnetlab.diagnostics.cam import cell_cam
    from resnetlab.models.classifier import Classifier
    from resnetlab.train.evaluate import brighten, encode_png

    net, data = subject.net, subject.data
    assert isinstance(net, Classifier)
    device = next(net.parameters()).device
    images = next(data.reported.batches([torch.tensor(samples)]))
    heats, logits = cell_cam(net, data.normalisation.on(device)(images.to(device)), layer)
    probabilities, answers = logits.double().softmax(dim=1).max(dim=1)
    return [
        CamReading(
            sample=sample,
            true=data.classes[int(data.reported.labels[sample])],
            predicted=data.classes[answer] if isfinite(probability) else None,
            probability=probability if isfinite(probability) else None,
            heat=[[value if isfinite(value) else None for value in row] for row in heat],
            picture=encode_png(image, LARGEST_IMAGE),
        )
        for sample, heat, answer, probability, image in zip(
            samples, heats.tolist(), answers.tolist(), probabilities.tolist(), brighten(images), strict=True
        )
    ]
