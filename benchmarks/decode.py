"""How much faster a JPEG is decoded at a part of its size, and what that changes: ``python benchmarks/decode.py``.

12-megapixel photographs are made of the two that scikit-learn ships, enlarged with a Lanczos filter and saved with
quality 90. For each, ``decode`` at side 224 is timed against Pillow's full decode, resize and cut, in turns, by the
time of the processor. The fastest turn of each counts; the pixels are compared.
"""

import argparse
from collections.abc import Callable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from time import process_time

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.data.decode import decode

SIZE, QUALITY, SIDE = (4000, 3000), 90, 224


def full_decode(data: bytes) -> np.ndarray:
    """Every pixel decoded, the short side resized, the middle cut out."""
    with Image.open(BytesIO(data)) as image:
        width, height = (SIDE * length // min(image.size) for length in image.size)
        left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)))


def seconds(function: Callable[[], object]) -> float:
    """Of this process, whatever else the machine does."""
    started = process_time()
    function()
    return process_time() - started


def measure(photo: Image.Image, turns: int) -> dict[str, float]:
    """One photograph: seconds of both ways, their ratio, and the mean difference in grey levels."""
    stream = BytesIO()
    photo.resize(SIZE, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=QUALITY)
    data = stream.getvalue()
    full, drafted = [], []
    for _ in range(turns):
        full.append(seconds(lambda: full_decode(data)))
        drafted.append(seconds(lambda: decode(data, SIDE)))
    difference = np.abs(full_decode(data).astype(float) - decode(data, SIDE))
    return {
        "bytes": len(data),
        "full_seconds": min(full),
        "draft_seconds": min(drafted),
        "ratio": min(full) / min(drafted),
        "median_ratio": float(np.median(full) / np.median(drafted)),
        "mean_difference": float(difference.mean()),
        "largest_difference": float(difference.max()),
    }


def main() -> None:
    """Print the figures, and write them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--turns", type=int, default=15, help="how often each way is timed")
    given = parser.parse_args()
    sample = load_sample_images()
    photos = {}
    for path, pixels in zip(sample.filenames, sample.images, strict=True):
        name = Path(path).name
        photos[name] = measure(Image.fromarray(pixels), given.turns)
        print(name, *(f"{key} {value:.4g}" for key, value in photos[name].items()), sep="  ")  # noqa: T201
    record = {
        "n": given.turns,
        "size": SIZE,
        "quality": QUALITY,
        "side": SIDE,
        "photos": photos,
        "environment": describe_environment("cpu", threads=1) | {"pillow": version("Pillow")},
    }
    if given.out:
        write_json(given.out, record)


if __name__ == "__main__":
    main()
