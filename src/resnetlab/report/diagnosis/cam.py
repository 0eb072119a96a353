"""Images beside what the predictions for them rest on, as one sheet for each net."""

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from typing import Any

import numpy as np

from resnetlab.core.errors import DataError
from resnetlab.records.diagnosis import LARGEST_IMAGE, CamResult, Diagnosis
from resnetlab.report.contact_sheet import CELL, DPI, EDGE, GAP, GREY, HEAD, LARGEST, Array, fit, to_png, write
from resnetlab.report.figure import Drawing
from resnetlab.report.table import Table, share

Heat = np.ndarray[Any, np.dtype[np.floating[Any]]]

TITLE = "What predictions rest on"
DETAIL = "Left: the image. Right: what supports the prediction, the brighter the more"
MOST_CAMS = 60
COLUMNS, CAPTION, NARROW = 4, 26, 9
"""Images in a row; pixels of a line below them, and of a letter in it."""
STRENGTH = 0.6
"""How much of a pixel the colour of the heat covers where it is 1."""


@dataclass(frozen=True, kw_only=True)
class Cam:
    """An image ``(H, W, C)`` as uint8, its heat ``(h, w)`` from 0 to 1 (NaN is none), and what to write below, in one
    line or two."""

    caption: str
    image: Array
    heat: Heat
    detail: str = ""


def tables(diagnosis: Diagnosis) -> list[Table]:
    """Every image that was looked at, with its answer."""
    rows: list[tuple[str, ...]] = [
        (net.model, cam.label, cam.true or "–", cam.predicted or "–", share(cam.probability), share(cam.warm))
        for net in diagnosis.trained.values()
        for cam in net.cams
    ]
    caption = f"{diagnosis.split.capitalize()} images by number, and the share of their map that is warm"
    return [Table(caption=caption, heads=("net", "image", "true", "predicted", "probability", "warm"), rows=rows)]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """The images with their heat: a sheet for the net, and one for its plain counterpart.

    Raises ``DataError`` where an image of the record is none.
    """
    return [
        Drawing(
            name="cam",
            description=f"{name.capitalize()}: {'; '.join(map(_describe, net.cams))}",
            svg=b"",
            png=draw_cams(name.capitalize(), DETAIL, list(map(cam_of, net.cams))),
        )
        for name, net in diagnosis.trained.items()
        if net.cams
    ]


def _describe(cam: CamResult) -> str:
    """An image of the sheet in words, for those who do not see it."""
    true = "" if cam.true is None else f", {cam.true}"
    heat = "no heat" if cam.warm is None else f"warm on {cam.warm:.0%}"
    return f"image {cam.label}{true}, predicted as {cam.predicted or 'nothing'} ({share(cam.probability)}), {heat}"


def cam_of(result: CamResult) -> Cam:
    """An image of the record as it is drawn. Raises ``DataError`` where it is none."""
    heat = np.array([[np.nan if value is None else value for value in row] for row in result.heat])
    answer = "no prediction" if result.predicted is None else result.predicted
    true = {True: ", right", False: f", true: {result.true}", None: ""}[result.right]
    return Cam(
        caption=f"{answer} {share(result.probability)}",
        image=decode_png(result.image, f"image {result.label} of the diagnosis"),
        heat=heat,
        detail=f"image {result.label}{true}",
    )


def decode_png(text: str, what: str) -> Array:
    """The pixels ``(H, W, 3)`` of a PNG in base64. Raises ``DataError`` where it is none, or larger than those kept."""
    from PIL import Image

    try:
        with Image.open(BytesIO(b64decode(text, validate=True)), formats=["PNG"]) as image:
            if max(image.size) <= LARGEST_IMAGE:
                return np.asarray(image.convert("RGB"))
    # PIL raises a SyntaxError for a broken PNG.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{what} is no whole PNG in base64 ({error}); the file was damaged or is not ours") from error
    raise DataError(f"{what} has more than {LARGEST_IMAGE} pixels a side; the file is not ours")


def draw_cams(title: str, detail: str, cams: Sequence[Cam], peak: int = 255) -> bytes:
    """A PNG with each of the first ``MOST_CAMS`` images, alone and under its heat; ``peak`` is shown as white."""
    from matplotlib.figure import Figure

    cams = cams[:MOST_CAMS]
    side = max((max(cam.image.shape[:2]) for cam in cams), default=CELL)
    # A small image grows in whole pixels, as on the sheet of a data set.
    cell = side * max(1, round(LARGEST / side)) if side <= LARGEST else min(side, 2 * LARGEST)
    lines = 2 if any(cam.detail for cam in cams) else 1
    wide, high = 2 * cell + GAP + EDGE, cell + lines * CAPTION + EDGE
    columns = max(1, min(COLUMNS, len(cams)))
    width = max(EDGE + columns * wide, 480)
    height = HEAD + ceil(len(cams) / columns) * high
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    for number, cam in enumerate(cams):
        row, column = divmod(number, columns)
        top, left = HEAD + row * high, EDGE + column * wide
        image = fit(cam.image, peak, cell)
        canvas[top : top + cell, left : left + cell] = image
        canvas[top : top + cell, left + cell + GAP : left + 2 * cell + GAP] = lay_over(image, cam.heat)
        for line, (text, colour) in enumerate(((cam.caption, "black"), (cam.detail, GREY))):
            write(axes, left, top + cell + CAPTION * (line + 0.5), text, 2 * cell // NARROW, size=7, color=colour)
    axes.imshow(canvas, interpolation="nearest", aspect="auto", extent=(0, width, height, 0))
    write(axes, EDGE, HEAD * 0.34, title, (width - 2 * EDGE) // 17, size=13, weight="bold")
    write(axes, EDGE, HEAD * 0.68, detail, (width - 2 * EDGE) // 9, size=8, color=GREY)
    return to_png(figure)


def lay_over(image: Array, heat: Heat) -> Array:
    """The grey image ``(H, W, 3)`` under colours that cover it by as much as ``heat``, of any size, is warm."""
    import matplotlib as mpl
    from PIL import Image

    small = Image.fromarray(np.nan_to_num(heat, nan=0.0).clip(0, 1).astype(np.float32))
    warm = np.asarray(small.resize(image.shape[1::-1], Image.Resampling.BILINEAR))
    colours = mpl.colormaps["inferno"](warm)[..., :3]
    grey = image.astype(np.float64).mean(axis=2, keepdims=True) / 255
    cover = STRENGTH * warm[..., None]
    mixed: Array = (255 * ((1 - cover) * grey + cover * colours)).round().astype(np.uint8)
    return mixed
