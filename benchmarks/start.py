"""What a folder of images takes before the first step: ``python benchmarks/start.py --out docs/results/start.json``.

JPEGs of 160×120 are made of the two photographs that scikit-learn ships, a hundred classes of them. For each number of
files fresh processes take turns at what torchvision's ``ImageFolder`` does (its ``make_dataset``, written out below,
since torchvision is not asked for: it lists names and opens nothing), at a first start of ours and at a second one:
``head`` with ``--check head`` and the statistics of weights, ``sample`` with those of a sample of the images instead,
``full`` with ``--check full``. Images are cut to 128 pixels, so that they are not held in memory. Beyond
``--files`` of them the others are hard links to the first: they have inodes in common, but are listed, asked for and
known again one by one.

Seconds are of the processor and of the wall, without imports; memory is what the process has gained at its highest.
``decode`` is one pass that decodes every image as training does, by as many processes as there are cores.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from statistics import quantiles
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import Normalisation
from resnetlab.data.folder import index_key  # noqa: F401  # imports are not counted
from resnetlab.data.opening import cores
from resnetlab.data.sources import load_data

SIZE, SIDE, CLASSES = (160, 120), 128, 100
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
IMAGENET = Normalisation(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


def image_folder(folder: str) -> tuple[list[tuple[str, int]], list[int]]:
    """``samples`` and ``targets`` of torchvision's ``ImageFolder``, by the calls of its ``make_dataset``."""

    def has_file_allowed_extension(name: str, extensions: tuple[str, ...]) -> bool:
        return name.lower().endswith(extensions)

    def is_valid_file(name: str) -> bool:
        return has_file_allowed_extension(name, EXTENSIONS)

    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    instances: list[tuple[str, int]] = []
    available: set[str] = set()
    for index, target in enumerate(classes):
        place = os.path.join(folder, target)  # noqa: PTH118  # as torchvision has it
        if not os.path.isdir(place):  # noqa: PTH112
            continue
        for root, _, names in sorted(os.walk(place, followlinks=True)):
            for name in sorted(names):
                path = os.path.join(root, name)  # noqa: PTH118
                if is_valid_file(path):
                    instances.append((path, index))
                    if target not in available:
                        available.add(target)
    return instances, [label for _, label in instances]


def make_folder(folder: Path, count: int, files: int) -> None:
    """``count`` JPEGs in ``CLASSES`` folders, of which at most ``files`` are files of their own."""
    draw = np.random.default_rng(0)
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    made: list[Path] = []
    for number in range(count):
        path = folder / f"class{number % CLASSES:03d}" / f"n{number:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < files:
            photo = photos[number % 2]
            left, top = (
                int(draw.integers(0, length - 2 * part)) for length, part in zip(photo.size, SIZE, strict=True)
            )
            stream = BytesIO()
            box = (left, top, left + 2 * SIZE[0], top + 2 * SIZE[1])
            photo.resize(SIZE, box=box).save(stream, "JPEG", quality=85)
            path.write_bytes(stream.getvalue())
            made.append(path)
        else:
            os.link(made[number % files], path)


def start(what: str, folder: str) -> dict[str, float]:
    """One start in this process: its seconds, and the memory that it took."""
    # The highest so far is that of the imports: it begins anew.
    Path("/proc/self/clear_refs").write_text("5")
    held_before = kib("VmRSS")
    begun = clocks()
    if what == "ImageFolder":
        held: object = image_folder(folder)
    elif what == "decode":
        decode = DecodeConfig(image_size=SIDE, check="none", workers=cores())
        held = data = load_data(folder, decode=decode, standard=IMAGENET)
        begun = clocks()
        for split in data.splits.values():
            for _ in split.batches(torch.split(torch.arange(len(split)), 64)):
                pass
    else:
        standard = IMAGENET if what == "head" else None
        held = load_data(
            folder, decode=DecodeConfig(image_size=SIDE, check="full" if what == "full" else "head"), standard=standard
        )
    processor, wall = (after - before for after, before in zip(clocks(), begun, strict=True))
    gained = kib("VmHWM") - held_before
    del held
    return {"processor": processor, "wall": wall, "mib": gained / 1024}


def kib(name: str) -> int:
    """A size of this process, as Linux says it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def clocks() -> tuple[float, float]:
    """Seconds of the processor, of this process and of those that it has ended, and of the wall."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used), perf_counter()


def measure(folder: Path, turns: int, whats: list[str]) -> dict[str, dict[str, list[float]]]:
    """Every way to start in turns, each in a process of its own; a first start has no index, a second one that of
    the last."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(turns):
        for what in whats:
            with tempfile.TemporaryDirectory() as cache:
                places = [what, f"second after {what}"] if what in ("head", "sample", "full") else [what]
                for name in places:
                    words = [sys.executable, __file__, "--start", what, "--folder", str(folder)]
                    environment = os.environ | {"RESNETLAB_CACHE": cache}
                    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
                    for key, value in json.loads(done.stdout).items():
                        found.setdefault(name, {}).setdefault(key, []).append(value)
    return found


def ratios(these: list[float], those: list[float]) -> list[float]:
    """Turn by turn."""
    return [one / other for one, other in zip(these, those, strict=True)]


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"quartile_1": low, "median": middle, "quartile_3": high}


def main() -> None:
    """Print the figures, and write them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[2_000, 10_000])
    parser.add_argument("--files", type=int, default=10_000, help="files of their own; the others are links to them")
    parser.add_argument("--full", type=int, default=10_000, help="most images that are decoded")
    parser.add_argument("--turns", type=int, default=5, help="of each number of files up to --full; one beyond")
    parser.add_argument("--place", type=Path, help="where the folders are made")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--start", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start:
        print(json.dumps(start(given.start, given.folder)))  # noqa: T201
        return
    record: dict[str, object] = {"side": SIDE, "size": SIZE, "files": given.files, "most_decoded": given.full}
    counts: dict[str, dict[str, object]] = {}
    for count in given.counts:
        folder = Path(tempfile.mkdtemp(dir=given.place))
        try:
            make_folder(folder, count, given.files)
            whats = ["ImageFolder", "head", "sample", *(["full", "decode"] if count <= given.full else [])]
            turns = given.turns if count <= given.full else max(1, given.turns // 2)
            found = measure(folder, turns, whats)
        finally:
            shutil.rmtree(folder)
        base = found["ImageFolder"]["processor"]
        counts[str(count)] = {
            "turns": turns,
            "starts": {name: {key: spread(values) for key, values in one.items()} for name, one in found.items()},
            "over_image_folder": {name: spread(ratios(one["processor"], base)) for name, one in found.items()},
        }
        if "decode" in found:
            counts[str(count)]["full_over_decode_wall"] = spread(ratios(found["full"]["wall"], found["decode"]["wall"]))
        print(count, json.dumps(counts[str(count)], indent=1))  # noqa: T201
        record |= {"counts": counts, "environment": describe_environment("cpu", threads=1) | {"processes": cores()}}
        if given.out:
            write_json(given.out, record)


if __name__ == "__main__":
    main()
