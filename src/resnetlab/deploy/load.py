"""Load what was trained, from a run, a bundle or the Hub, with its classes and its preprocessing; and use it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from resnetlab.core.errors import CheckpointError, ConfigError, DataError, printable
from resnetlab.core.files import folder_exists, read_json
from resnetlab.deploy.bundle import BUNDLE, CONFIG, LIBRARY, WEIGHTS, checked, read_bundle
from resnetlab.deploy.preprocessing import Prediction, Preprocessing, predictions
from resnetlab.deploy.share import local_folder
from resnetlab.models.architectures import config_from_plain
from resnetlab.models.classifier import Classifier
from resnetlab.models.init import build
from resnetlab.models.weights import load_weights
from resnetlab.records.run import RunRecord
from resnetlab.train.folder import DATA, RECIPE, RECORD
from resnetlab.train.prepare import pick_device
from resnetlab.train.recipe import recipe_config
from resnetlab.train.run import read_trained
from resnetlab.train.state import restore_model

BATCH = 64
"""Images at a time."""


class PixelNetwork(nn.Module):
    """A network that takes pixels: uint8 ``(N, side, side, C)`` to logits ``(N, K)``. This is what is exported."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(preprocessing.mean_of_pixels).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std_of_pixels).view(-1, 1, 1), persistent=False)

    def standardise(self, pixels: Tensor) -> Tensor:
        """The input of the network, float32 ``(N, C, side, side)``."""
        return (pixels.permute(0, 3, 1, 2).to(torch.float32) - self.mean) / self.std

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.net(self.standardise(pixels))
        return logits


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A trained network in eval mode, with what it needs to be used: ``classes`` in the order of its logits, and
    ``preprocessing``.

    ``model`` is its name in the zoo, ``origin`` the folder that it came from, ``recipe`` that of its run and
    ``results`` the figures that were reported of it.
    """

    net: Classifier
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    model: str
    origin: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @property
    def pixel_network(self) -> PixelNetwork:
        """The network with its standardisation, as it is exported, on its device."""
        made = self._pixel_network
        return made if made.mean.device == self.device else made.to(self.device)

    @cached_property
    def _pixel_network(self) -> PixelNetwork:
        return PixelNetwork(self.net, self.preprocessing).eval()

    def preprocess(self, image: "str | Path | bytes | Image.Image | np.ndarray[Any, Any] | Tensor") -> Tensor:
        """The input that ``net`` takes for one image: float32 ``(C, side, side)``, standardised."""
        pixels = torch.from_numpy(self.preprocessing.pixels(_as_array(image)).copy())
        return self.pixel_network.standardise(pixels[None].to(self.device))[0]

    @torch.inference_mode()
    def logits(self, batch: Tensor) -> Tensor:
        """Logits ``(N, K)`` of inputs ``(N, C, side, side)`` as ``preprocess`` gives them."""
        logits: Tensor = self.net(batch.to(self.device))
        return logits

    @torch.inference_mode()
    def features(self, batch: Tensor) -> Tensor:
        """Pooled features ``(N, num_features)``, those that the head turns into logits, of inputs as of ``logits``."""
        return self.net.pool_features(self.net.forward_features(batch.to(self.device)))

    @overload
    def predict(self, images: Sequence[Any], top: int = 5, *, white: float | None = None) -> list[Prediction]: ...

    @overload
    def predict(self, images: Any, top: int = 5, *, white: float | None = None) -> Any: ...

    def predict(self, images: Any, top: int = 5, *, white: float | None = None) -> Any:
        """The ``top`` most probable classes: a ``Prediction`` for one image, a list of them for several.

        An image is a path, the bytes of a file, an image of Pillow, an array ``(H, W)`` or ``(H, W, C)``, or a tensor
        ``(C, H, W)``; several are a list of these, an array ``(N, H, W, C)`` or a tensor ``(N, C, H, W)``. In arrays
        and tensors 0 is black and ``white`` white: 255 for uint8 if nothing is said, ``white=1`` for those that
        torchvision's ToTensor gives.

        Raises ``DataError`` for what cannot be read. Inputs that were preprocessed already go to ``logits``.
        """
        several = isinstance(images, list | tuple) or getattr(images, "ndim", 3) == 4
        found = [
            prediction
            for batch in _batches(images if several else [images])
            for prediction in predictions(self._logits_of(batch, white), self.classes, top)
        ]
        return found if several else found[0]

    def _logits_of(self, images: Sequence[Any], white: float | None) -> "np.ndarray[Any, np.dtype[np.float32]]":
        pixels = np.stack([self.preprocessing.pixels(_as_array(image), white) for image in images])
        return self.logits_of_pixels(pixels)

    @torch.inference_mode()
    def logits_of_pixels(
        self, pixels: "np.ndarray[Any, np.dtype[np.uint8]]"
    ) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Logits ``(N, K)`` of pixels ``(N, side, side, C)`` as ``Preprocessing.pixels`` gives them."""
        logits = self.pixel_network(torch.from_numpy(pixels).to(self.device))
        return np.asarray(logits.float().cpu())


def load(
    source: str | Path,
    *,
    checkpoint: Literal["best", "last"] = "best",
    white: int | None = None,
    device: str = "auto",
) -> TrainedNetwork:
    """The network that was trained in a run's folder, or that a bundle or ``hub:owner/name`` holds; no data is needed.

    Of a run ``checkpoint`` says which: the best epoch by the validation images, or the last. ``white`` is the value of
    a white pixel in its training images, for a run that does not know it.

    Raises ``CheckpointError`` where there is nothing to load or it is damaged, ``DataError`` for a run whose notes of
    its data are damaged or do not say what white is.

    >>> net = resnetlab.load("runs/photos")
    >>> print(net.predict("cat.jpg"))
    """
    folder = local_folder(source)
    if (folder / BUNDLE).is_file():
        return _load_bundle(folder, device)
    if not (folder / RECIPE).is_file():
        raise CheckpointError(
            f"{printable(folder)} holds no run (it has no {RECIPE}) and no bundle (no {BUNDLE}); give the "
            "folder of one, or hub:owner/name"
        )
    return _load_run(folder, checkpoint, white, device)


def _load_run(folder: Path, which: Literal["best", "last"], white: int | None, device: str) -> TrainedNetwork:
    if which == "best" and not folder_exists(folder / "best"):
        which = "last"
    recipe, checkpoint = read_trained(folder, which)
    data = read_json(folder / DATA)
    preprocessing = recorded_preprocessing(data, folder, white)
    classes = recorded_classes(data, folder)
    config = replace(
        recipe_config(recipe),
        num_classes=len(classes),
        in_chans=preprocessing.channels,
        image_size=preprocessing.side,
    )
    net = build(config, seed=recipe.seed, device=str(pick_device(device)))
    restore_model(net, checkpoint.model, checkpoint)
    assert isinstance(net, Classifier)
    return TrainedNetwork(
        net=net.eval(),
        classes=classes,
        preprocessing=preprocessing,
        model=recipe.model,
        origin=folder,
        recipe=checkpoint.settings.values.get("recipe", {}),
        results=recorded_results(folder, which),
    )


def recorded_preprocessing(data: Any, folder: Path, white: int | None = None) -> Preprocessing:
    """The preprocessing that the note of a run's data says; ``white`` is what the user says.

    Raises ``DataError`` where the note is damaged or does not say what white is, and ``ConfigError`` where it says
    another white than the user.
    """
    try:
        channels, height, _ = data["shape"]
        known = data["white"] if "white" in data else _known_white(str(data["source"]))
        if white is not None and known not in (None, white):
            raise ConfigError(f"white={white} is not possible: in the training images of {folder} white is {known}")
        if (white := white or known) is None:
            raise DataError(
                f"{printable(folder)} does not say which value was white in its training images; say it: --white 255 "
                "(white=255), or 16 for grey levels from 0 to 16"
            )
        return Preprocessing(
            side=height, channels=channels, white=white, mean=tuple(data["mean"]), std=tuple(data["sd"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, error) from error


def recorded_classes(data: Any, folder: Path) -> tuple[str, ...]:
    """The classes that the note of a run's data says. Raises ``DataError`` where it is damaged."""
    try:
        return tuple(map(str, data["classes"]))
    except (KeyError, TypeError) as error:
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception) -> DataError:
    return DataError(f"{printable(folder / DATA)} is damaged ({error!r}); put it back as the run wrote it")


def _known_white(source: str) -> int | None:
    """The white of data whose note is older than ``white`` in it: known of images in files and of the digits."""
    if source == "digits":
        return 16
    return None if source.startswith(("npz:", "idx:")) else 255


def recorded_results(folder: Path, which: Literal["best", "last"]) -> dict[str, Any]:
    """What the run's record reports of that checkpoint: split, accuracy, loss and n; nothing for a run that has not
    ended."""
    from resnetlab.core.serialize import read_record

    if not (folder / RECORD).is_file():
        return {}
    record = read_record(RunRecord, folder / RECORD)
    epoch = record.best if which == "best" else record.final
    if record.final is None or epoch is None:
        return {}
    found = epoch.reported
    return {"split": epoch.reported_split, "accuracy": 1 - found.error, "loss": found.loss, "n": found.n}


def _load_bundle(folder: Path, device: str) -> TrainedNetwork:
    bundle = read_bundle(folder)
    plain = read_json(checked(bundle, folder, CONFIG)).get(LIBRARY)
    try:
        config = config_from_plain(plain, str(folder / CONFIG))
    except (ConfigError, DataError, AttributeError) as error:
        raise CheckpointError(f"{printable(folder / CONFIG)} does not say the network ({error})") from error
    net = build(config, seed=0, device=str(pick_device(device)))
    load_weights(net, checked(bundle, folder, WEIGHTS))
    assert isinstance(net, Classifier)
    return TrainedNetwork(
        net=net.eval(),
        classes=bundle.classes,
        preprocessing=bundle.preprocessing,
        model=bundle.model,
        origin=folder,
        recipe=bundle.recipe,
        results=bundle.results,
    )


def _batches(images: Any) -> Iterator[Any]:
    return (images[start : start + BATCH] for start in range(0, len(images), BATCH))


def _as_array(image: Any) -> Any:
    """A tensor ``(C, H, W)`` as an array ``(H, W, C)``; all else as it is."""
    if not isinstance(image, Tensor):
        return image
    if image.ndim == 2:
        return image.cpu().numpy()
    if image.ndim != 3:
        raise DataError(
            f"a tensor of shape {tuple(image.shape)} is no image; give (C, H, W), or (N, C, H, W) for several"
        )
    return image.permute(1, 2, 0).cpu().numpy()
