"""What a batch of decoded images costs the process that trains: ``python benchmarks/feed.py --beside OTHER/src``.

Two workers decode JPEG of 500×375 to 224 pixels by random resized crop; this process mirrors, standardises and takes
the batches of 32 as channels_last. Its processor time is taken for each batch once the workers are warm. With
``--beside`` the code of another source folder takes turns with this one, each turn in a process of its own; the batches
of both must have one SHA-256.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.data.augmentation import Augmentation
from resnetlab.data.config import AugmentConfig, DecodeConfig
from resnetlab.data.dataset import Normalisation
from resnetlab.data.loader import Loader
from resnetlab.data.sources import load_data

SIDE, BATCH, BATCHES, WARM, WORKERS, FILES = 224, 32, 24, 6, 2, 1024
HERE = Path(__file__).resolve().parents[1] / "src"


def write_photos(folder: Path, files: int = FILES) -> None:
    """JPEGs of 64 places in the two photographs that scikit-learn ships, each under several names, in two classes."""
    draw, shown = np.random.default_rng(0), load_sample_images().images
    for number in range(64):
        image = Image.fromarray(shown[number % 2])
        left, top = (int(draw.integers(0, free)) for free in (image.width - 500, image.height - 375))
        stream = BytesIO()
        image.crop((left, top, left + 500, top + 375)).save(stream, "JPEG", quality=90)
        for name in range(number, files, 64):
            path = folder / str(number % 2) / f"{name:04d}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(stream.getvalue())


def one_pass(folder: Path) -> dict[str, object]:
    """Processor time of this process for each batch in milliseconds, and the digest of all batches."""
    torch.set_num_threads(1)
    data = load_data(folder, decode=DecodeConfig(image_size=SIDE, workers=WORKERS))
    augmentation = Augmentation(AugmentConfig(random_resized_crop=True, flip=True), SIDE, 2)
    norm = Normalisation(mean=(124.1, 116.2, 103.7), std=(58.4, 57.1, 57.4))
    loader = Loader(data.train, norm, BATCH, memory_format=torch.channels_last, augmentation=augmentation)
    content, taken = hashlib.sha256(), []
    batches = loader.shuffled(0, 1)
    for _ in range(BATCHES):
        started = process_time()
        images, _labels = next(batches)
        taken.append(1000 * (process_time() - started))
        content.update(images.permute(0, 2, 3, 1).contiguous().numpy().data)
    return {"ms": taken[WARM:], "sha256": content.hexdigest()}


def main() -> None:
    """Print the figures, and write them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="source folder of other code to compare with")
    parser.add_argument("--turns", type=int, default=9, help="how often each code takes its turn")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--one-pass", type=Path, help="measure the code at hand on this folder and print it as JSON")
    given = parser.parse_args()
    if given.one_pass:
        print(json.dumps(one_pass(given.one_pass)))  # noqa: T201
        return
    sources = {"this": HERE} | ({"beside": given.beside.resolve()} if given.beside else {})
    found: dict[str, list[dict[str, object]]] = {name: [] for name in sources}
    with TemporaryDirectory() as place:
        write_photos(Path(place))
        for turn in range(given.turns):
            for name in list(sources)[:: -1 if turn % 2 else 1]:
                command = [sys.executable, __file__, "--one-pass", place]
                environment = os.environ | {"PYTHONPATH": str(sources[name])}
                told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
                found[name].append(json.loads(told))
    rows = {}
    for name, passes in found.items():
        medians = [float(np.median(each["ms"])) for each in passes]
        low, middle, high = np.percentile(medians, [25, 50, 75]).tolist()
        rows[name] = {"quartile_1": low, "median": middle, "quartile_3": high}
        print(f"{name}: {middle:.2f} ms a batch ({low:.2f} to {high:.2f})")  # noqa: T201
    digests = {each["sha256"] for passes in found.values() for each in passes}
    if len(digests) > 1:
        raise SystemExit("the batches differ")
    if given.out:
        settings = {"n": given.turns, "batch": BATCH, "side": SIDE, "workers": WORKERS, "batches": BATCHES - WARM}
        write_json(given.out, settings | {"ms_a_batch": rows, "environment": describe_environment("cpu", threads=1)})


if __name__ == "__main__":
    main()
