"""Pages that classify images: one that holds the network, and one that asks the server it came from. No torch is
loaded here."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np

from resnetlab.core.errors import ConfigError
from resnetlab.core.files import atomic_write
from resnetlab.deploy.bundle import Bundle, checked
from resnetlab.deploy.engines import FILES
from resnetlab.deploy.golden import FP32_TOLERANCE, Golden, GoldenImage, golden_pixels, read_golden
from resnetlab.deploy.preprocessing import SHAPES
from resnetlab.deploy.web.program import Program
from resnetlab.report.page import render_program

WEB = "web/index.html"
LARGE_PAGE = 1_000_000
"""Bytes beyond which large weights are half precision, if the golden images still agree."""
MOST_NUMBERS, MOST_WORK = 26_000_000, 5_000_000_000
"""Of a network, each about 2.7 bytes of the page, and multiply-adds for an image: a browser does about 1e9 a second."""
GOLDEN_BYTES, GOLDEN_WORK = 4_000_000, 40_000_000_000
"""Of the golden images in a page, and multiply-adds to check them: a page of a large network has fewer."""
HALF_TOLERANCE = 5e-3
"""Largest difference that half precision may make, relative to the largest |logit|."""
TOP = 5


def write_web(bundle: Bundle, folder: Path) -> None:
    """Write the page of the bundle in ``folder``, of its ONNX format and its golden images. Raises as ``web_page``."""
    atomic_write(folder / WEB, web_page(bundle, folder))


def web_page(bundle: Bundle, folder: Path) -> str:
    """One file of HTML that holds the network, asks for nothing, and checks golden images when it opens.

    Raises ``ConfigError`` for a network that a browser cannot compute, or not in seconds; ``CheckpointError`` for a
    bundle without ONNX or with damaged files.
    """
    program, golden = Program(checked(bundle, folder, FILES["onnx"])), read_golden(bundle, folder)
    work = program.multiply_adds
    require_page(bundle.model, bundle.preprocessing.channels, program.numbers, work)
    images = _some(golden, folder, work)
    single = _page(bundle, program.plain(half=False), golden, images, folder, FP32_TOLERANCE)
    if len(single) <= LARGE_PAGE:
        return single
    tolerance = _half_tolerance(program, bundle, golden, images, folder)
    return _page(bundle, program.plain(half=True), golden, images, folder, tolerance) if tolerance else single


def require_page(model: str, channels: int, numbers: int, work: int) -> None:
    """Raise ``ConfigError`` unless a page can hold a network of so many ``numbers``, and a browser compute ``work``
    multiply-adds for an image of ``channels`` in some seconds."""
    if channels not in SHAPES:
        raise ConfigError(f"no browser shows images of {channels} channels; export {model} to another format than web")
    if work > MOST_WORK or numbers > MOST_NUMBERS:
        raise ConfigError(
            f"{model} is too large for a page ({work / 1e9:.1f} billion multiply-adds an image, {numbers / 1e6:.1f} "
            f"million numbers; at most {MOST_WORK / 1e9:.0f} and {MOST_NUMBERS / 1e6:.0f}); serve it (resnetlab "
            "serve), whose page asks the server"
        )


def served_page(bundle: Bundle) -> str:
    """The page of a server: it sends each image to ``predict`` beside it, and asks ``readyz`` whether it may."""
    return _rendered(bundle, {"engine": "server"}, ("image.js", "page.js"), examples=0)


def _some(golden: Golden, folder: Path, work: int) -> list[GoldenImage]:
    """As many golden images as a page has room and time for: at least the last, which EXIF turns."""
    images, size = [*golden.images[-1:], *golden.images[:-1]], 0
    for count, image in enumerate(images):
        size += (folder / image.file).stat().st_size
        if count and (size > GOLDEN_BYTES or (count + 1) * work > GOLDEN_WORK):
            return images[:count]
    return [*images[1:], images[0]]


def _half_tolerance(
    program: Program, bundle: Bundle, golden: Golden, images: list[GoldenImage], folder: Path
) -> float | None:
    """What the logits may differ by with large weights in half precision; None where that changes too much."""
    pixels = golden_pixels(folder, [image.file for image in images], bundle.preprocessing)
    kept = np.array([image.logits for image in images])
    found = program.half_logits(pixels)
    relative = float(np.abs(found - kept).max() / np.abs(golden.logits).max())
    same = (found.argmax(axis=1) == kept.argmax(axis=1)).all()
    return 2 * relative + FP32_TOLERANCE if same and relative <= HALF_TOLERANCE else None


def _page(
    bundle: Bundle, plain: dict[str, Any], golden: Golden, images: list[GoldenImage], folder: Path, tolerance: float
) -> str:
    content = {
        "engine": "page",
        "program": plain,
        "largest": float(np.abs(golden.logits).max()),
        "tolerance": tolerance,
        "golden": [
            {
                "name": Path(image.file).name,
                "png": b64encode((folder / image.file).read_bytes()).decode(),
                "label": image.label,
                "answer": image.answer,
                "logits": [float(f"{value:.7g}") for value in image.logits],
            }
            for image in images
        ],
    }
    return _rendered(bundle, content, ("image.js", "network.js", "page.js"), examples=len(images))


def _rendered(bundle: Bundle, content: dict[str, Any], scripts: tuple[str, ...], *, examples: int) -> str:
    preprocessing = bundle.preprocessing
    content = {
        "classes": bundle.classes,
        "side": preprocessing.side,
        "channels": preprocessing.channels,
        "top": TOP,
    } | content
    return render_program(
        "page.html.jinja",
        "deploy/web",
        content,
        [Path(__file__).with_name(name) for name in scripts],
        bundle=bundle,
        here=content["engine"] == "page",
        examples=examples,
    )
