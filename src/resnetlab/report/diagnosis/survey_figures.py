"""The figures of paths, loss surfaces and heat maps on the page of a diagnosis, each drawn from its record."""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from io import BytesIO

import numpy as np

from resnetlab.core.errors import DataError
from resnetlab.records.diagnosis import LARGEST_IMAGE, CamReading, Diagnosis, NetReading
from resnetlab.report.contact_sheet import Array
from resnetlab.report.diagnosis.cam import Cam, draw_cams
from resnetlab.report.diagnosis.landscape import describe_landscapes, landscape_figure
from resnetlab.report.diagnosis.paths import describe_paths, path_figure
from resnetlab.report.figure import to_svg
from resnetlab.report.run.figures import Curves

DETAIL = "Left the image, right what speaks for the answer: bright most"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Images of the page as one PNG in base64, with what they show in words."""

    description: str
    png: str


def draw_survey_figures(diagnosis: Diagnosis) -> list[Curves]:
    """The paths and the loss surfaces that the record has, in the style that is set."""
    net, initial = diagnosis.net, diagnosis.initial
    found = []
    if net.paths:
        before = initial.paths if initial else None
        found.append(("paths", describe_paths(net.paths, before), path_figure(net.paths, before)))
    surfaces = {name: one.landscape for name, one in twins(diagnosis).items() if one.landscape}
    if surfaces:
        found.append(("landscape", describe_landscapes(surfaces), landscape_figure(surfaces)))
    return [Curves(name=name, description=words, svg=to_svg(figure)) for name, words, figure in found]


def draw_cam_sheets(diagnosis: Diagnosis) -> list[Sheet]:
    """The images with their heat: a sheet for the net, and one for its plain twin.

    Raises ``DataError`` where an image of the record is none.
    """
    return [
        Sheet(
            description=f"{name.capitalize()}: {describe_cams(one.cams)}",
            png=b64encode(draw_cams(name.capitalize(), DETAIL, [cam_of(reading) for reading in one.cams])).decode(),
        )
        for name, one in twins(diagnosis).items()
        if one.cams
    ]


def twins(diagnosis: Diagnosis) -> dict[str, NetReading]:
    """The net and its plain twin, called so that no name from outside is drawn."""
    pair = {"this net": diagnosis.net, "plain twin": diagnosis.control}
    return {name: net for name, net in pair.items() if net}


def cam_of(reading: CamReading) -> Cam:
    """A reading as it is drawn. Raises ``DataError`` where its image is none."""
    image = decode_png(reading.picture, f"image {reading.sample} of the diagnosis")
    heat = np.array([[np.nan if value is None else value for value in row] for row in reading.heat])
    answer = "no answer" if reading.predicted is None else reading.predicted
    return Cam(
        caption=f"{answer} {percent(reading.probability)}",
        image=image,
        heat=heat,
        detail=f"image {reading.sample}, {'right' if reading.right else f'true: {reading.true}'}",
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


def describe_cams(readings: list[CamReading]) -> str:
    """The sheet in words, for those who do not see it."""
    return "; ".join(
        f"image {reading.sample}, {reading.true}, taken for {reading.predicted or 'nothing'} "
        f"({percent(reading.probability)}), " + ("no heat" if reading.warm is None else f"warm on {reading.warm:.0%}")
        for reading in readings
    )


def percent(probability: float | None) -> str:
    """A probability as it is written below an image."""
    return "–" if probability is None else f"{probability:.1%}"
