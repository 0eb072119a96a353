"""Damaged image files and odd folders, made by chance: what becomes of them, counted."""

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from resnetlab.core.errors import DataError
from resnetlab.core.randomness import generator
from resnetlab.data.config import DecodeConfig
from resnetlab.data.decode import decode
from resnetlab.data.sources import load_data

DEADLINE = 20.0


class HungError(BaseException):
    """Past its deadline; no Exception, so that nothing takes it for an image that cannot be read."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise HungError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def seed_files() -> list[bytes]:
    """Whole images of all seven formats, in several modes."""
    pixels = generator(0, "seed files").integers(0, 256, (20, 24, 4), dtype=np.uint8)
    rgba, rgb = Image.fromarray(pixels), Image.fromarray(pixels[..., :3])
    grey, palette = rgb.convert("L"), rgb.quantize(16)
    deep = Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 100)
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        encoded(rgb, "JPEG", exif=exif),
        encoded(rgb, "JPEG", progressive=True),
        encoded(rgb.convert("CMYK"), "JPEG"),
        encoded(grey, "JPEG"),
        *(encoded(image, "PNG") for image in (rgb, rgba, grey, palette, deep, grey.convert("1"))),
        encoded(rgba, "PNG", exif=exif),
        encoded(rgb, "WEBP"),
        encoded(rgba, "WEBP", lossless=True, exif=exif),
        encoded(rgba, "WEBP", save_all=True, append_images=[rgba.rotate(90)]),
        *(encoded(image, "BMP") for image in (rgb, palette, grey.convert("1"))),
        *(encoded(image, "TIFF") for image in (rgb, rgba, deep, palette)),
        *(encoded(rgb, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
        encoded(rgb, "TIFF", exif=exif),
        encoded(palette, "GIF"),
        encoded(palette, "GIF", save_all=True, append_images=[palette.rotate(90)], transparency=3),
        *(encoded(image, "PPM") for image in (rgb, grey, grey.convert("1"))),
        b"P2 3 2 1000\n0 1 2 997 998 999\n",
    ]


def damaged(whole: list[bytes], rng: np.random.Generator) -> bytes:
    """One of the files after one to three faults: flipped bits, a cut, garbage, another file's bytes, a lost piece."""
    data = bytearray(whole[rng.integers(len(whole))])
    for _ in range(rng.integers(1, 4)):
        fault, place = rng.integers(6), int(rng.integers(len(data) + 1))
        length = int(rng.integers(1, 64))
        if fault == 0:
            for bit in rng.integers(0, max(1, 8 * len(data)), rng.integers(1, 9)):
                if bit // 8 < len(data):
                    data[bit // 8] ^= 1 << int(bit % 8)
        elif fault == 1:
            del data[place:]
        elif fault == 2:
            data[place : place + length] = rng.bytes(length)
        elif fault == 3:
            data[place:] = whole[rng.integers(len(whole))][place:]
        elif fault == 4:
            del data[place : place + length]
        else:
            # Heads lie at the start, and lie worst with extreme values.
            place = int(rng.integers(64))
            data[place : place + 4] = (b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff")[place % 4]
    return bytes(data)


def fuzz(count: int, seed: int) -> dict[str, Any]:
    """Decode ``count`` damaged files; each is read or refused with ``DataError``, anything else is a crash."""
    rng, whole = generator(seed, "fuzz pictures"), seed_files()
    counts: dict[str, Any] = {"files": count, "read": 0, "refused": 0, "hung": 0, "crashes": []}
    slowest = 0.0
    for number in range(count):
        data = damaged(whole, rng)
        side = (None, 8, 64)[number % 3]
        box = rng.random(4).tolist() if number % 2 and side else None
        started = perf_counter()
        try:
            with deadline(DEADLINE):
                pixels = decode(data, side, box)
            if side and pixels.shape != (side, side, 3):
                counts["crashes"].append(f"{number}: {pixels.shape}")
            counts["read"] += 1
        except DataError:
            counts["refused"] += 1
        except HungError:
            counts["hung"] += 1
        except BaseException as error:
            counts["crashes"].append(f"{number}: {error!r}")
        slowest = max(slowest, perf_counter() - started)
    return counts | {"slowest_seconds": round(slowest, 2)}


NAMES = ["cat", "a b", 'it\'s "x"', "žluťoučký", "🐱", "new\nline", "byte\udcff", "-rf", "$HOME", "%s"]


class MadeTree:
    """A folder with images whose grey level tells their class, and with whatever else a folder may hold."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.rng = rng
        self.images = self.bad = 0
        names = sorted(self.names(int(rng.integers(2, 5))))
        parts = ["train", ("val", "valid", "test")[rng.integers(3)]] if rng.integers(2) else ["."]
        folders = [(folder / part / name, label) for part in parts for label, name in enumerate(names)]
        for place, label in folders:
            self.fill(place, label)
        for number in rng.permutation(len(folders))[:3]:
            self.disturb(folders[number][0], folder)

    def names(self, count: int) -> list[str]:
        return [NAMES[number] for number in self.rng.permutation(len(NAMES))[:count]]

    def fill(self, folder: Path, label: int) -> None:
        for number in range(self.rng.integers(5, 9)):
            deep = self.rng.integers(5) == 0
            place = folder.joinpath(*self.names(int(self.rng.integers(1, 4))) * 5) if deep else folder
            place.mkdir(parents=True, exist_ok=True)
            suffix = (".png", ".JPG", "")[self.rng.integers(3)]
            (place / f"{self.names(1)[0]}{number}{suffix}").write_bytes(grey_png(40 * label))
            self.images += 1

    def disturb(self, folder: Path, root: Path) -> None:
        """Some of what should not be there; ``bad`` counts what must be reported."""
        faults = self.rng.integers(0, 2, 9)
        if faults[0]:
            os.mkfifo(folder / "pipe.png")
        if faults[1]:
            (folder / "dangling.png").symlink_to("nowhere")
        if faults[2]:
            (folder / "empty.png").touch()
        if faults[3]:
            (folder / "broken").write_bytes(grey_png(0)[:-30])
        if faults[4]:
            (folder / "self").symlink_to("self")
        if faults[5]:
            with socket.socket(socket.AF_UNIX) as made:
                bind(made, folder)
        self.bad += int(faults[:6].sum())
        if faults[6]:
            for name, target in (("here", "."), ("root", root), ("up", "..")):
                (folder / name).symlink_to(target)
        if faults[7]:
            for name in (".hidden.png", "Thumbs.db", "notes.TXT", ".DS_Store"):
                (folder / name).write_bytes(b"x")
            (folder / "__MACOSX" / "inside").mkdir(parents=True)
            (folder / "void" / "void").mkdir(parents=True)
        if faults[8]:
            (folder / "locked").mkdir(0)
            # The administrator may enter it all the same.
            self.bad += os.geteuid() != 0


def grey_png(level: int) -> bytes:
    return encoded(Image.new("L", (8, 8), level), "PNG")


def bind(made: socket.socket, folder: Path) -> None:
    """A socket's address is short, so it is named from within its folder."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        made.bind("socket.png")
    finally:
        os.fchdir(before)
        os.close(before)


def trees(count: int, seed: int) -> dict[str, Any]:
    """Read ``count`` odd folders: none may hang, each image must have its class, each bad entry must be told."""
    counts: dict[str, Any] = {"folders": count, "images": 0, "bad": 0, "hung": 0, "crashes": []}
    for number in range(count):
        with tempfile.TemporaryDirectory() as name:
            tree = MadeTree(Path(name), generator(seed, "fuzz folders", number))
            counts["images"] += tree.images
            counts["bad"] += tree.bad
            try:
                with deadline(DEADLINE):
                    fault = wrong(Path(name), tree)
                counts["crashes"] += [f"{number}: {fault}"] if fault else []
            except HungError:
                counts["hung"] += 1
            except Exception as error:
                counts["crashes"].append(f"{number}: {error!r}")
    return counts


def wrong(folder: Path, tree: MadeTree) -> str:
    """What ``load_data`` gets wrong about the tree; nothing where it is right."""
    data = load_data(f"folder:{folder}", 0, DecodeConfig(on_bad="skip", workers=tree.images % 3))
    for split in (data.train, data.reported):
        if not bool((split.images[:, 0, 0, 0] == 40 * split.labels).all()):
            return "an image has another's class"
    if len(data.train) + len(data.reported) != tree.images:
        return f"{len(data.train)} + {len(data.reported)} of {tree.images} images"
    told = [note for note in data.notes if note.startswith(f"{tree.bad} of ")]
    if bool(told) != bool(tree.bad):
        return f"{tree.bad} bad entries, but {data.notes}"
    if tree.bad:
        try:
            load_data(f"folder:{folder}")
        except DataError as error:
            return "" if f": {tree.bad} of " in str(error) else str(error)
        return "bad entries were passed over"
    return ""
