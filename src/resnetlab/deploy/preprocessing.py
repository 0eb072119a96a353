"""From an image to the pixels that a trained network takes. This file loads no torch: a server needs none."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetlab.core.errors import ConfigError, DataError, listed, require
from resnetlab.core.serialize import as_plain
from resnetlab.data.decode import Pixels, decode, decode_opened

SHAPES = {1: "(H, W) or (H, W, 1)", 3: "(H, W, 3)"}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image becomes the input of a network, as the training images did.

    Its short side is resized to ``side`` and the middle cut out (``data.decode``), which gives uint8 of shape
    ``(side, side, channels)``: v from 0, black, to 255, white. The network takes (v · white / 255 - mean) / std as
    float32. ``mean`` and ``std``, one number a channel, are in the units of the training images, in which white is
    ``white``: 255, but for sets such as the digits, whose grey levels go from 0 to 16.

    Raises ``ConfigError`` for numbers that make no image.
    """

    side: int
    channels: int
    white: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    filter: Literal["bilinear"] = "bilinear"
    crop: Literal["center"] = "center"

    def __post_init__(self) -> None:
        require(1 <= self.side <= 8192, "side", self.side, "1 to 8192")
        require(1 <= self.white <= 255, "white", self.white, "1 to 255")
        require(len(self.mean) == len(self.std) == self.channels > 0, "mean", self.mean, "one number a channel")
        require(min(self.std) > 0, "std", self.std, "above 0")

    @property
    def mean_of_pixels(self) -> tuple[float, ...]:
        """``mean`` in the units of pixels, 0 … 255: (v - mean_of_pixels) / std_of_pixels is what the network takes."""
        return tuple(value * (255 / self.white) for value in self.mean)

    @property
    def std_of_pixels(self) -> tuple[float, ...]:
        """``std`` in the units of pixels, 0 … 255."""
        return tuple(value * (255 / self.white) for value in self.std)

    @property
    def plain(self) -> dict[str, Any]:
        """As plain data, which JSON can hold."""
        return as_plain(self)  # type: ignore[no-any-return]

    def pixels(self, image: "bytes | str | Path | Image.Image | NDArray[Any]", white: float | None = None) -> Pixels:
        """The pixels ``(side, side, channels)``, uint8, of an image: a file or its bytes, an opened image of Pillow, or
        an array ``(H, W)`` or ``(H, W, C)`` in which 0 is black and ``white`` white, 255 for uint8 if nothing is said.

        Raises ``DataError`` for what cannot be read, and for an array that does not say what is white.
        """
        if isinstance(image, np.ndarray):
            return self._from_array(image, white)
        if self.channels not in SHAPES:
            raise DataError(
                f"the network takes images of {self.channels} channels, which no image file has; give arrays "
                f"({self.side}, {self.side}, {self.channels})"
            )
        if isinstance(image, Image.Image):
            return self._in_channels(decode_opened(image, self.side))
        return self._in_channels(decode(Path(image) if isinstance(image, str) else image, self.side))

    def _in_channels(self, pixels: Pixels) -> Pixels:
        if self.channels == 3:
            return pixels
        red, green, blue = (pixels[:, :, channel].tobytes() for channel in range(3))
        if red == green == blue:
            return np.frombuffer(red, np.uint8).reshape(*pixels.shape[:2], 1)
        # (19595 R + 38470 G + 7471 B) / 65536, which would leave grey as it is.
        return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]

    def _from_array(self, values: NDArray[Any], white: float | None) -> Pixels:
        values = values[:, :, None] if values.ndim == 2 else values
        own = (self.side, self.side, self.channels)
        if values.ndim != 3 or not values.size or (values.shape[2] not in SHAPES and values.shape != own):
            raise DataError(f"an array of shape {values.shape} is no image here; give {SHAPES.get(self.channels, own)}")
        levels = self._levels(values, white)
        if levels.shape == own:
            return np.ascontiguousarray(levels)
        opened = Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)
        return self._in_channels(decode_opened(opened, self.side))

    def _levels(self, values: NDArray[Any], white: float | None) -> Pixels:
        """The values as uint8 from 0, black, to 255, white."""
        if white is None and (values.dtype != np.uint8 or self.white != 255):
            raise DataError(
                f"an array of {values.dtype} does not say which value is white; say it: white=255, or white=1 for "
                f"numbers from 0 to 1{'' if self.white == 255 else f', or {self.white} as in the training images'}"
            )
        if white is None:
            return values
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= white:
            raise DataError(f"an array from {low:g} to {high:g} does not lie between 0, black, and white={white:g}")
        return np.rint(values * (255 / white)).astype(np.uint8)


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, and their probabilities; none for numbers that are not finite."""

    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def answer(self) -> str | None:
        """The most probable class."""
        return self.classes[0] if self.classes else None

    def first(self, top: int) -> "Prediction":
        """The ``top`` most probable of these."""
        return Prediction(self.classes[:top], self.probabilities[:top])

    def __str__(self) -> str:
        return ", ".join(f"{name} {share:.1%}" for name, share in zip(self.classes, self.probabilities, strict=True))


def predictions(logits: NDArray[np.float32], classes: Sequence[str], top: int) -> list[Prediction]:
    """The ``top`` most probable classes of each row of ``logits`` ``(N, K)``: softmax in float64, of equal logits the
    lower class first.

    Raises ``ConfigError`` for a ``top`` below 1.
    """
    require(top >= 1, "top", top, "1 or more")
    if logits.shape[1:] != (len(classes),):
        raise ConfigError(f"logits of shape {logits.shape} do not fit the {len(classes)} classes {listed(classes)}")
    with np.errstate(invalid="ignore"):  # an infinite logit gives a NaN, and no answer
        shares = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
    order = np.argsort(-shares, axis=1, kind="stable")[:, :top]
    return [
        Prediction(tuple(classes[k] for k in first), tuple(float(row[k]) for k in first))
        if np.isfinite(row).all()
        else Prediction((), ())
        for row, first in zip(shares, order, strict=True)
    ]
