"""Export what was trained as a bundle: a folder with the network, its classes, its preprocessing, and the formats that
other programs read, each compared with the trained network before it is kept."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from resnetlab.core.environment import describe_environment
from resnetlab.core.errors import ConfigError, DataError, ExportError, printable, require, unknown_name
from resnetlab.core.files import atomic_write, new_folder, require_vacant
from resnetlab.core.randomness import generator
from resnetlab.core.serialize import from_plain, write_record
from resnetlab.data.dataset import ImageData, Images, Split
from resnetlab.data.decode import Pixels, decode
from resnetlab.data.encoded import EncodedSplit
from resnetlab.deploy.bundle import CARD, WEIGHTS, Bundle, bundle_name, read_bundle, seal
from resnetlab.deploy.compare import Evidence, FormatCheck, Gates, compare, evidence_of, failure, size_of
from resnetlab.deploy.engines import FILES, open_bundle, open_predictor
from resnetlab.deploy.formats import FORMATS, Format, Job, pixels_of, with_parts, work_of, write_network
from resnetlab.deploy.golden import (
    FP32_TOLERANCE,
    GOLDEN,
    Golden,
    GoldenImage,
    golden_pixels,
    write_golden_images,
)
from resnetlab.deploy.load import TrainedNetwork, load
from resnetlab.deploy.preprocessing import Preprocessing
from resnetlab.report.model_card import bundle_card
from resnetlab.train.folder import RECIPE, check_data, run_data
from resnetlab.train.recipe import Recipe, read_recipe, recipe_data

VERIFICATION = "verification.json"
ALL = "all"
MOST_IMAGES, LEAST_IMAGES, MOST_WORK = 10_000, 256, 2e12
"""Test images that each format is compared over: as many as there are, up to so many, or multiply-adds for them."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What goes into a bundle: ``to`` names formats, and ``golden`` is the number of golden images.

    ``calibrate`` training images set the ranges of int8; ``gates`` are what formats have to pass.

    Raises ``ConfigError`` for an unknown format.
    """

    to: tuple[str, ...] = ()
    golden: int = 32
    calibrate: int = 300
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        for name in self.to:
            if name not in (*FORMATS, ALL):
                raise unknown_name("format", name, (*FORMATS, ALL))
        require(self.golden >= 1, "golden", self.golden, "1 or more")
        require(self.calibrate >= 1, "calibrate", self.calibrate, "1 or more")


@dataclass(frozen=True, kw_only=True)
class Verification:
    """``verification.json``: the trained network itself, then every format of the bundle, on this machine."""

    formats: list[FormatCheck]
    environment: dict[str, Any]
    format: Literal[1] = 1


class Steps:
    """Counts the steps of some work for ``on_progress``."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None] | None) -> None:
        self.done, self.total, self.on_progress = 0, total, on_progress

    def take(self) -> None:
        """One more is done."""
        self.done += 1
        if self.on_progress:
            self.on_progress(self.done, self.total)


def export(
    source: str | Path,
    out: Path,
    config: ExportConfig | None = None,
    *,
    checkpoint: Literal["best", "last"] = "best",
    data: str | None = None,
    white: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Bundle, Verification]:
    """Write the network of a run or a bundle as a bundle to the folder ``out``, in the formats of ``config``.

    ``data`` is where the images of the run are now, if they have moved; ``white`` as of ``load``. ``on_progress`` is
    told how many of how many steps are done: to read the images, to write a format, to compare one.

    Raises ``ExportError`` for a format that does not pass its gate, and keeps nothing; ``ConfigError`` where ``out`` is
    taken and for a format that this network cannot have; ``MissingExtraError`` for one whose packages are not
    installed; ``DataError`` where the images are not found or have changed.
    """
    config = config or ExportConfig()
    require_vacant(out, "bundle")
    trained = load(source, checkpoint=checkpoint, white=white, device="cpu")
    wanted = chosen_formats(config, trained)
    # What is not installed is told before the images are read.
    with_parts(wanted)
    return write_bundle(trained, images_of(trained, data), out, config, wanted, on_progress=on_progress)


def write_bundle(
    trained: TrainedNetwork,
    images: ImageData,
    out: Path,
    config: ExportConfig,
    wanted: Sequence[str] = (),
    note: str = "",
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Bundle, Verification]:
    """Write the network as a bundle to the folder ``out``, in the formats ``wanted``, which it can have; ``note`` is a
    sentence for its card. Raises as ``export`` does."""
    written, compared = with_parts(wanted), [name for name in wanted if name in FILES]
    steps = Steps(2 + len(written) + len(compared), on_progress)
    steps.take()
    numbers = compared_numbers(images.reported, trained)
    pixels = pixels_of(images.reported, numbers, trained.preprocessing)
    evidence = evidence_of(trained, pixels, images.reported.labels.cpu().numpy()[numbers])
    steps.take()
    with new_folder(out) as folder:
        job = Job(
            trained=trained,
            bundle=Bundle(
                name=bundle_name(out),
                model=trained.model,
                classes=trained.classes,
                preprocessing=trained.preprocessing,
                results=trained.results,
                recipe=trained.recipe,
                data=images.fingerprint["sha256"],
                note=note,
                environment=describe_environment("cpu", torch.get_num_threads()),
            ),
            folder=folder,
            train=images.train,
            calibrate=config.calibrate,
        )
        write_network(job)
        for name in written:
            if not FORMATS[name].of_golden:
                FORMATS[name].write(job)
                steps.take()
        bundle = seal(job.bundle, folder)
        checks = [check_network(folder, evidence, config.gates)]
        for name in compared:
            checks.append(check_format(bundle, folder, name, evidence, config.gates, checks[0]))
            steps.take()
        write_golden(folder, trained, images, numbers[: config.golden], checks)
        for name in written:
            if FORMATS[name].of_golden:
                FORMATS[name].write(job)
                steps.take()
        for name in set(written) - set(wanted):
            shutil.rmtree(folder / name)
        verification = Verification(formats=checks, environment=describe_environment("cpu", torch.get_num_threads()))
        write_record(folder / VERIFICATION, verification)
        atomic_write(folder / CARD, card_of(bundle, wanted, verification))
        return seal(bundle, folder), verification


def chosen_formats(config: ExportConfig, trained: TrainedNetwork) -> list[str]:
    """The formats that are asked for, in the order of ``FORMATS``; all are those that this network can have.

    Raises ``ConfigError`` for one that it cannot have.
    """
    if ALL in config.to:
        return [name for name, kind in FORMATS.items() if _can_have(trained, kind)]
    chosen = [name for name in FORMATS if name in config.to]
    for name in chosen:
        FORMATS[name].require(trained)
    return chosen


def _can_have(trained: TrainedNetwork, kind: Format) -> bool:
    try:
        kind.require(trained)
    except ConfigError:
        return False
    return True


def images_of(trained: TrainedNetwork, data: str | None) -> ImageData:
    """The images that the network was trained with, from ``data`` or from where they are found.

    Raises ``DataError`` where they are nowhere, or have changed.
    """
    folder = trained.origin
    if (folder / RECIPE).is_file():
        # The weights that it started from may be gone by now.
        images = run_data(folder, replace(read_recipe(folder / RECIPE), weights=None), data)
        check_data(images, folder)
        return images
    if not trained.recipe:
        raise DataError(
            f"{printable(folder)} does not say what it was trained with, so there are no test images to compare an "
            "export with; export the run itself"
        )
    recipe = from_plain(Recipe, trained.recipe, f"the recipe of {printable(folder)}")
    images = recipe_data(replace(recipe, data=data or recipe.data, weights=None))
    if images.fingerprint["sha256"] != read_bundle(folder).data:
        raise DataError(
            f"{images.source} is not what the network in {printable(folder)} was trained with: its SHA-256 is another; "
            "name the right place with --data"
        )
    return images


def compared_numbers(images: Images, trained: TrainedNetwork) -> "NDArray[np.int64]":
    """Numbers of the images that formats are compared over, in an order drawn by their number alone."""
    most = min(MOST_IMAGES, max(LEAST_IMAGES, int(MOST_WORK / work_of(trained))))
    return generator(0, "golden").permutation(len(images))[:most]


def check_network(folder: Path, evidence: Evidence, gates: Gates) -> FormatCheck:
    """The network as the bundle holds it beside the trained one."""
    check = compare(open_predictor(folder, "torch", device="cpu"), evidence, gates)
    return replace(check, bytes=size_of(folder / WEIGHTS))


def check_format(
    bundle: Bundle, folder: Path, name: str, evidence: Evidence, gates: Gates, network: FormatCheck
) -> FormatCheck:
    """A format beside the trained network. Raises ``ExportError``, with the figures of ``network``, where it does not
    pass its gate."""
    check = compare(open_bundle(bundle, folder, name), evidence, gates)
    if not check.passed:
        raise ExportError(failure(check, network, gates))
    return replace(check, bytes=size_of((folder / FILES[name]).parent))


def write_golden(
    folder: Path, trained: TrainedNetwork, images: ImageData, numbers: "NDArray[np.int64]", checks: list[FormatCheck]
) -> None:
    """The golden images of those numbers, and ``golden.json`` with their logits."""
    preprocessing, split = trained.preprocessing, images.reported
    originals = [original(split, int(number), preprocessing) for number in numbers]
    files = write_golden_images(folder, originals, preprocessing.side)
    pixels = golden_pixels(folder, files, preprocessing)
    logits = trained.logits_of_pixels(pixels)
    tolerance = dict.fromkeys((check.name for check in checks), FP32_TOLERANCE)
    if "int8" in tolerance:
        # Other processors round 8-bit sums otherwise; of the images in their own size this is known to be reached.
        found = next(check.relative for check in checks if check.name == "int8")
        tolerance["int8"] = 2 * found
    labels = split.labels.cpu().numpy()[numbers]
    golden = Golden(
        images=tuple(
            GoldenImage(
                file=file,
                label=trained.classes[label],
                answer=trained.classes[int(row.argmax())],
                logits=tuple(map(float, row)),
            )
            for file, label, row in zip(files, labels, logits, strict=True)
        ),
        tolerance=tolerance,
    )
    write_record(folder / GOLDEN, golden)


def original(split: Images, number: int, preprocessing: Preprocessing) -> Pixels:
    """An image in its own size, the right way up, from 0 to 255 ``(H, W, C)``."""
    if isinstance(split, EncodedSplit | Split) and split.store is not None:
        return decode(split.store[number], None)
    pixels: Pixels = pixels_of(split, np.array([number]), preprocessing)[0]
    return pixels


def card_of(bundle: Bundle, formats: Sequence[str], verification: Verification) -> str:
    """The model card of the bundle."""
    rows = [check.cells("") for check in verification.formats]
    heads = ("format", "kB", "largest difference", "answers changed", "accuracy, %", "CPU ms an image")
    return bundle_card(
        name=bundle.name,
        model=bundle.model,
        classes=bundle.classes,
        preprocessing=bundle.preprocessing.plain,
        results=bundle.results,
        source=str(bundle.recipe.get("data", "")),
        note=bundle.note,
        formats=formats,
        table=[heads, *rows],
        environment=verification.environment,
    )
