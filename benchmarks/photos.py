"""How long it takes from a messy folder of photos to an answer: ``python benchmarks/photos.py --out FILE``.

Crops of three photographs that scikit-learn and matplotlib ship are saved as a careless user would: several sizes and
formats, some on their side, with files beside them that are cut short, empty, doubled or no images at all. Then come
the four commands of docs/photos.md, each in a process of its own, with all cores; what they print is left out.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from defaults import photographs
from PIL import Image

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.core.randomness import generator
from resnetlab.core.serialize import read_record
from resnetlab.records.run import RunRecord

PAGE = Path(__file__).parents[1] / "docs" / "photos.md"
FORMATS = ("jpg", "jpg", "JPEG", "png", "webp")
SIDES = (240, 640)
"""Of the photos, in pixels."""


def make_messy(folder: Path, each: int) -> None:
    """``each`` photos in a folder for each of three classes, and what does not belong there."""
    for name, photo in photographs().items():
        place = folder / name / "camera"
        place.mkdir(parents=True)
        for number in range(each):
            draw = generator(0, "photo", name, number)
            wide, tall = draw.integers(120, min(photo.size), 2).tolist()
            left, top = (int(draw.integers(0, most + 1)) for most in (photo.width - wide, photo.height - tall))
            size = tuple(draw.integers(*SIDES, 2).tolist())
            image = photo.resize(size, box=(left, top, left + wide, top + tall))
            exif = Image.Exif()
            if number % 4 == 0:
                image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
            image.save((place if number % 2 else place.parent) / f"{number}.{FORMATS[number % 5]}", exif=exif)
        whole = (place / "1.jpg").read_bytes()
        (place / "cut short.jpg").write_bytes(whole[: len(whole) // 2])
        (place / "copy of 1.jpg").write_bytes(whole)
        (place / "empty.png").touch()
        (place.parent / "notes.txt").write_text("no image")
    image.save(folder.parent / "photo.jpg")


def commands() -> list[list[str]]:
    """The words of the first block of docs/photos.md."""
    block = re.search(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    return [shlex.split(line)[1:] for line in block[1].splitlines()]


def main() -> None:
    """Print the seconds, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=150, help="photos of each class")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        place = Path(folder)
        make_messy(place / "photos", given.each)
        seconds = {}
        for words in commands():
            began = perf_counter()
            done = subprocess.run([sys.executable, "-m", "resnetlab", *words], cwd=place, stdout=subprocess.DEVNULL)
            seconds[" ".join(["resnetlab", *words])] = perf_counter() - began
            # Inspection ends with 3: it names what would stop training without --on-bad.
            if done.returncode != (3 if words[0] == "data" else 0):
                sys.exit(f"{shlex.join(words)} ended with {done.returncode}")
        record = read_record(RunRecord, place / "runs" / "photos" / "record.json")
    tested = record.final and record.final.reported
    assert tested is not None
    found = {
        "photos": 3 * given.each,
        "model": record.model,
        "epochs": record.recipe["training"]["epochs"],
        "test_error": tested.error,
        "n": tested.n,
        "seconds": seconds,
        "environment": describe_environment("cpu", len(os.sched_getaffinity(0))),
    }
    print(found)  # noqa: T201
    if given.out:
        write_json(given.out, found)


if __name__ == "__main__":
    main()
