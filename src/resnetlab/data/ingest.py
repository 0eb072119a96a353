"""From encoded images to splits: into memory where they are small and fit, else decoded when asked for."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from resnetlab.core.errors import DataError
from resnetlab.core.files import read_file
from resnetlab.data.cells import Name, Part
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import Encoding, Images, Split
from resnetlab.data.encoded import EncodedSplit
from resnetlab.data.held import CHANNELS, USUAL_SIDE, is_held
from resnetlab.data.image import DecodedImage, read_image, reason

LISTED = 20

Progress = Callable[[int, int], None]


class OtherSizeError(Exception):
    """An image has another size than the first one had."""


@dataclass
class Pass:
    """One pass over all images: what is wrong with which, and what the others are.

    With ``same`` it ends in ``OtherSizeError`` at the first image that is not of ``side`` by itself.
    """

    parts: Mapping[Name, Part]
    side: int
    on_progress: Progress | None
    same: bool
    bad: dict[Name, list[int]] = field(default_factory=lambda: {"train": [], "test": []})
    faults: list[str] = field(default_factory=list)
    lossy: dict[Name, set[bool]] = field(default_factory=lambda: {"train": set(), "test": set()})

    @property
    def count(self) -> int:
        """Images in all parts."""
        return sum(len(part.labels) for part in self.parts.values())

    def __iter__(self) -> Iterator[tuple[Name, int, bytes, DecodedImage]]:
        """Split, number, file and pixels of every image that can be read."""
        done = 0
        for split, part in self.parts.items():
            for number, cell in enumerate(part.cells):
                try:
                    content = cell if isinstance(cell, bytes) else read_file(cell)
                    image = read_image(content, self.side)
                except Exception as error:  # a damaged image can fail in any way
                    self.bad[split].append(number)
                    self.faults.append(f"{part.names[number]}: {reason(error)}")
                else:
                    if self.same and (image.width, image.height) != (self.side, self.side):
                        raise OtherSizeError
                    self.lossy[split].add(image.lossy)
                    yield split, number, content, image
                done += 1
                if self.on_progress:
                    self.on_progress(done, self.count)

    def encoding(self, split: Name) -> Encoding:
        """lossless where no image of the split went through lossy compression, jpeg where all did."""
        return "mixed" if len(self.lossy[split]) > 1 else "jpeg" if True in self.lossy[split] else "lossless"


def decode_parts(
    parts: Mapping[Name, Part], source: str, decode: DecodeConfig, on_progress: Progress | None
) -> tuple[dict[Name, Images], list[str]]:
    """The two splits, and what should be said of images that were left out.

    Raises ``DataError`` with the list of all images that cannot be read, unless they are to be left out.
    """
    own, wanted = _first_side(parts), decode.image_size
    try:
        if own is None or wanted not in (None, own):
            raise OtherSizeError
        run = Pass(parts, own, on_progress, same=True)
        images = _decode(run, decode.workers)
    except OtherSizeError:
        run = Pass(parts, wanted or USUAL_SIDE, on_progress, same=False)
        images = _decode(run, decode.workers)
    return images, _describe_faults(run, source, decode)


def _first_side(parts: Mapping[Name, Part]) -> int | None:
    """The side of the first image that can be read, if it is square."""
    for part in parts.values():
        for cell in part.cells:
            try:
                image = read_image(cell, 1)
            except Exception:  # the pass over all images will list it
                continue
            return image.width if image.width == image.height else None
    return None


def _decode(run: Pass, workers: int) -> dict[Name, Images]:
    return _into_memory(run) if is_held(run.side, run.count, whole=run.same) else _when_asked(run, workers)


def _into_memory(run: Pass) -> dict[Name, Images]:
    shape = (CHANNELS, run.side, run.side)
    arrays = {name: np.empty((len(part.labels), *shape), np.uint8) for name, part in run.parts.items()}
    for split, number, _, image in run:
        arrays[split][number] = image.pixels.transpose(2, 0, 1)
    splits: dict[Name, Images] = {}
    for name, part in run.parts.items():
        images = np.delete(arrays[name], run.bad[name], axis=0) if run.bad[name] else arrays[name]
        splits[name] = Split(
            images=torch.from_numpy(images),
            labels=torch.from_numpy(part.without(run.bad[name]).labels),
            encoding=run.encoding(name),
        )
    return splits


def _when_asked(run: Pass, workers: int) -> dict[Name, Images]:
    levels = {name: torch.zeros(CHANNELS, 256, dtype=torch.float64) for name in run.parts}
    sums = {name: hashlib.sha256() for name in run.parts}
    for split, _, content, image in run:
        sums[split].update(hashlib.sha256(content).digest())
        for channel in range(CHANNELS):
            values = torch.from_numpy(image.pixels[..., channel].reshape(-1).astype(np.int64))
            levels[split][channel] += torch.bincount(values, minlength=256)
    splits: dict[Name, Images] = {}
    for name, part in run.parts.items():
        whole = part.without(run.bad[name])
        splits[name] = EncodedSplit(
            store=whole.cells,
            labels=torch.from_numpy(whole.labels),
            side=run.side,
            levels=levels[name],
            identity=sums[name].hexdigest(),
            encoding=run.encoding(name),
            workers=workers,
            names=whole.names,
        )
    return splits


def _describe_faults(run: Pass, source: str, decode: DecodeConfig) -> list[str]:
    if not run.faults:
        return []
    listed = "; ".join(run.faults[:LISTED]) + ("; …" if len(run.faults) > LISTED else "")
    if decode.on_bad == "skip":
        return [f"{len(run.faults)} of {run.count} images cannot be read and are left out: {listed}"]
    raise DataError(
        f"{source}: {len(run.faults)} of {run.count} images cannot be read: {listed}. Mend the set, or leave them "
        "out with --on-bad skip"
    )
