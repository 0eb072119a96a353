"""Export what was trained as a bundle: a folder with the network, its classes, its preprocessing, and the formats that
other programs read, each compared with the trained network before it is kept."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from resnetlab.core.environment import describe_environment
from resnetlab.core.errors import DataError, ExportError, printable, require, unknown_name
from resnetlab.core.files import atomic_write, new_folder, require_vacant
from resnetlab.core.randomness import generator
from resnetlab.core.serialize import from_plain, write_record
from resnetlab.data.dataset import ImageData, Images, Split
from resnetlab.data.decode import Pixels, decode
from resnetlab.data.encoded import EncodedSplit
from resnetlab.deploy.bundle import CARD, WEIGHTS, Bundle, bundle_name, read_bundle, seal
from resnetlab.deploy.engines import FILES, Logits, Predictor, open_bundle, open_predictor
from resnetlab.deploy.formats import FORMATS, Job, pixels_of, timm_name, with_parts, write_network
from resnetlab.deploy.golden import (
    FP32_TOLERANCE,
    GOLDEN,
    Golden,
    GoldenImage,
    golden_file,
    golden_pixels,
    write_golden_images,
)
from resnetlab.deploy.load import TrainedNetwork, load
from resnetlab.deploy.preprocessing import Preprocessing
from resnetlab.models.summary import summarise
from resnetlab.report.model_card import bundle_card
from resnetlab.train.folder import RECIPE, check_data, run_data
from resnetlab.train.recipe import Recipe, read_recipe, recipe_data

VERIFICATION = "verification.json"
ALL = "all"
GATE = 1e-5
"""Largest difference of a logit of a float32 format, relative to the largest |logit| of all images."""
MOST_IMAGES, LEAST_IMAGES, MOST_WORK = 10_000, 256, 2e12
"""Test images that each format is compared over: as many as there are, up to so many, or multiply-adds for them."""
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What goes into a bundle: ``to`` names formats, and ``golden`` is the number of golden images.

    ``calibrate`` training images set the ranges of int8, which passes its gate with an accuracy at most ``max_drop``
    points lower, and at least ``min_agreement`` percent of the answers that the trained network gives.

    Raises ``ConfigError`` for an unknown format.
    """

    to: tuple[str, ...] = ()
    golden: int = 32
    calibrate: int = 300
    max_drop: float = 0.5
    min_agreement: float = 97.0

    def __post_init__(self) -> None:
        for name in self.to:
            if name not in (*FORMATS, ALL):
                raise unknown_name("format", name, (*FORMATS, ALL))
        require(self.golden >= 1, "golden", self.golden, "1 or more")
        require(self.calibrate >= 1, "calibrate", self.calibrate, "1 or more")


@dataclass(frozen=True, kw_only=True)
class FormatCheck:
    """A format beside the trained network in torch and float32, over ``n`` images.

    ``difference`` is the largest of any logit, ``relative`` the same over the largest |logit|, ``changed`` the number
    of answers that differ, and ``accuracy`` the share that is right, None without labels. ``milliseconds`` is CPU time
    for one image in batches of 32, ``bytes`` the size of the files.
    """

    name: str
    n: int
    difference: float
    relative: float
    changed: int
    accuracy: float | None
    milliseconds: float
    bytes: int = 0
    passed: bool

    @property
    def agreement(self) -> float:
        """The share of the answers that are the trained network's."""
        return 1 - self.changed / self.n


@dataclass(frozen=True, kw_only=True)
class Verification:
    """``verification.json``: the trained network itself, then every format of the bundle, on this machine."""

    formats: list[FormatCheck]
    environment: dict[str, Any]
    format: Literal[1] = 1


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What formats are compared over: pixels ``(N, side, side, C)``, their labels ``(N,)`` if known, the trained
    network's logits ``(N, K)`` and the CPU time that it took, in milliseconds an image."""

    pixels: Pixels
    labels: NDArray[np.int64] | None
    logits: Logits
    milliseconds: float


def export(
    source: str | Path,
    out: Path,
    config: ExportConfig | None = None,
    *,
    checkpoint: Literal["best", "last"] = "best",
    data: str | None = None,
    white: int | None = None,
) -> tuple[Bundle, Verification]:
    """Write the network of a run or a bundle as a bundle to the folder ``out``, in the formats of ``config``.

    ``data`` is where the images of the run are now, if they have moved; ``white`` as of ``load``.

    Raises ``ExportError`` for a format that does not pass its gate, and keeps nothing; ``ConfigError`` where ``out`` is
    taken and for a format that this network cannot have; ``MissingExtraError`` for one whose packages are not
    installed; ``DataError`` where the images are not found or have changed.
    """
    config = config or ExportConfig()
    require_vacant(out, "bundle")
    trained = load(source, checkpoint=checkpoint, white=white, device="cpu")
    wanted = chosen_formats(config, trained)
    written = with_parts(tuple(wanted))
    images = images_of(trained, data)
    numbers = compared_numbers(images.reported, trained)
    evidence = make_evidence(trained, images.reported, numbers)
    with new_folder(out) as folder:
        job = Job(
            trained=trained,
            bundle=new_bundle(trained, bundle_name(out), images.fingerprint["sha256"]),
            folder=folder,
            train=images.train,
            calibrate=config.calibrate,
        )
        write_network(job)
        for name in written:
            FORMATS[name].write(job)
        bundle = seal(job.bundle, folder)
        checks = check_formats(bundle, folder, [name for name in wanted if name in FILES], evidence, config)
        for name in set(written) - set(wanted):
            shutil.rmtree(folder / name)
        write_golden(folder, trained, images, numbers[: config.golden], checks)
        verification = Verification(formats=checks, environment=describe_environment("cpu", torch.get_num_threads()))
        write_record(folder / VERIFICATION, verification)
        atomic_write(folder / CARD, card_of(bundle, wanted, verification))
        return seal(bundle, folder), verification


def chosen_formats(config: ExportConfig, trained: TrainedNetwork) -> list[str]:
    """The formats that are asked for, in the order of ``FORMATS``; all are those that this network can have."""
    if ALL not in config.to:
        return [name for name in FORMATS if name in config.to]
    return [name for name in FORMATS if name != "timm" or timm_name(trained)]


def images_of(trained: TrainedNetwork, data: str | None) -> ImageData:
    """The images that the network was trained with, from ``data`` or from where they are found.

    Raises ``DataError`` where they are nowhere, or have changed.
    """
    folder = trained.origin
    if (folder / RECIPE).is_file():
        images = run_data(folder, read_recipe(folder / RECIPE), data)
        check_data(images, folder)
        return images
    if not trained.recipe:
        raise DataError(
            f"{printable(folder)} does not say what it was trained with, so there are no test images to compare an "
            "export with; export the run itself"
        )
    recipe = from_plain(Recipe, trained.recipe, f"the recipe of {printable(folder)}")
    images = recipe_data(replace(recipe, data=data or recipe.data))
    if images.fingerprint["sha256"] != read_bundle(folder).data:
        raise DataError(
            f"{images.source} is not what the network in {printable(folder)} was trained with: its SHA-256 is another; "
            "name the right place with --data"
        )
    return images


def new_bundle(trained: TrainedNetwork, name: str, data: str) -> Bundle:
    """The bundle of the network, before its files have sums; ``data`` is the SHA-256 of its images."""
    return Bundle(
        name=name,
        model=trained.model,
        classes=trained.classes,
        preprocessing=trained.preprocessing,
        results=trained.results,
        recipe=trained.recipe,
        data=data,
        environment=describe_environment("cpu", torch.get_num_threads()),
    )


def compared_numbers(images: Images, trained: TrainedNetwork) -> "NDArray[np.int64]":
    """Numbers of the images that formats are compared over, in an order drawn by their number alone."""
    preprocessing = trained.preprocessing
    own = replace(trained.net.config, image_size=preprocessing.side, in_chans=preprocessing.channels)
    work = max(1, summarise(own).multiply_adds)
    return generator(0, "golden").permutation(len(images))[: min(MOST_IMAGES, max(LEAST_IMAGES, int(MOST_WORK / work)))]


def make_evidence(trained: TrainedNetwork, images: Images, numbers: "NDArray[np.int64]") -> Evidence:
    """The trained network's logits of those images. Raises ``ExportError`` where they are not finite."""
    pixels = pixels_of(images, numbers, trained.preprocessing)
    return evidence_of(trained, pixels, images.labels.cpu().numpy()[numbers])


def evidence_of(trained: TrainedNetwork, pixels: Pixels, labels: NDArray[np.int64] | None = None) -> Evidence:
    """As ``make_evidence``, of pixels."""
    logits, milliseconds = timed(trained.logits_of_pixels, pixels)
    if not np.isfinite(logits).all():
        raise ExportError(f"the network in {printable(trained.origin)} gives NaN or infinite logits: do not use it")
    return Evidence(pixels=pixels, labels=labels, logits=logits, milliseconds=milliseconds)


def timed(logits_of: Any, pixels: Pixels) -> tuple[Logits, float]:
    """The logits in batches of 32, and the CPU time of all threads for one image in milliseconds."""
    logits_of(pixels[:BATCH])  # memory is taken and kernels are chosen at the first call
    start = process_time()
    found = np.concatenate([logits_of(pixels[at : at + BATCH]) for at in range(0, len(pixels), BATCH)])
    return found, 1000 * (process_time() - start) / len(pixels)


def check_formats(
    bundle: Bundle, folder: Path, names: Sequence[str], evidence: Evidence, config: ExportConfig
) -> list[FormatCheck]:
    """Every format compared with the trained network, after the network as the bundle holds it.

    Raises ``ExportError`` for the first that does not pass its gate.
    """
    checks = [replace(compare(open_predictor(folder, "torch"), evidence, config), bytes=size_of(folder / WEIGHTS))]
    for name in names:
        path = folder / FILES[name]
        check = replace(compare(open_bundle(bundle, folder, name), evidence, config), bytes=size_of(path.parent))
        if not check.passed:
            raise ExportError(_failure(check, checks[0], config))
        checks.append(check)
    return checks


def compare(predictor: Predictor, evidence: Evidence, config: ExportConfig) -> FormatCheck:
    """A format beside the trained network, and whether it passes its gate; batches of 1 and of 7 count too."""
    found, milliseconds = timed(predictor.logits, evidence.pixels)
    seven = np.resize(np.arange(len(found)), 7)
    small = np.concatenate([predictor.logits(evidence.pixels[:1]), predictor.logits(evidence.pixels[seven])])
    kept = np.concatenate([evidence.logits, evidence.logits[:1], evidence.logits[seven]])
    difference = float(np.nan_to_num(np.abs(np.concatenate([found, small]) - kept), nan=np.inf).max())
    relative = difference / float(np.abs(evidence.logits).max() or 1)
    changed = int((found.argmax(axis=1) != evidence.logits.argmax(axis=1)).sum())
    accuracy, before = (accuracy_of(logits, evidence.labels) for logits in (found, evidence.logits))
    n = len(found)
    if predictor.engine == "int8":
        drop = 0.0 if accuracy is None or before is None else 100 * (before - accuracy)
        passed = drop <= config.max_drop and 100 * (1 - changed / n) >= config.min_agreement
    else:
        passed = relative <= GATE and changed == 0
    return FormatCheck(
        name=predictor.engine,
        n=n,
        difference=difference,
        relative=relative,
        changed=changed,
        accuracy=accuracy,
        milliseconds=evidence.milliseconds if predictor.engine == "torch" else milliseconds,
        passed=passed,
    )


def accuracy_of(logits: Logits, labels: NDArray[np.int64] | None) -> float | None:
    """The share of the answers that are right."""
    return None if labels is None else float((logits.argmax(axis=1) == labels).mean())


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _failure(check: FormatCheck, eager: FormatCheck, config: ExportConfig) -> str:
    agree = f"{100 * check.agreement:.2f} % of {check.n:,} answers agree"
    if check.name != "int8":
        return (
            f"{check.name} does not compute what the trained network does, and nothing was kept: its logits differ by "
            f"{check.relative:.1e} of the largest (at most {GATE:.0e}), and {agree} (all must); export to another "
            "format, and tell us of it"
        )
    before, after = 100 * (eager.accuracy or 0), 100 * (check.accuracy or 0)
    return (
        f"int8 is below its gate, and nothing was kept: accuracy {after:.2f} % instead of {before:.2f} % (at most "
        f"{config.max_drop:g} points less), and {agree} (at least {config.min_agreement:g} %); calibrate with more "
        f"images (--calibrate {4 * config.calibrate}), use openvino in float32, or allow it (--max-drop, "
        "--min-agreement)"
    )


def write_golden(
    folder: Path, trained: TrainedNetwork, images: ImageData, numbers: "NDArray[np.int64]", checks: list[FormatCheck]
) -> None:
    """The golden images of those numbers, and ``golden.json`` with their logits."""
    preprocessing, split = trained.preprocessing, images.reported
    originals = [original(split, int(number), preprocessing) for number in numbers]
    write_golden_images(folder, originals, preprocessing.side)
    files = [golden_file(number) for number in range(len(originals))]
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
    return pixels_of(split, np.array([number]), preprocessing)[0]


def card_of(bundle: Bundle, formats: Sequence[str], verification: Verification) -> str:
    """The model card of the bundle."""
    rows = [
        (
            check.name,
            f"{check.bytes / 1000:,.0f}",
            f"{check.relative:.1e}",
            f"{check.changed} of {check.n:,}",
            "" if check.accuracy is None else f"{100 * check.accuracy:.2f}",
            f"{check.milliseconds:.3g}",
        )
        for check in verification.formats
    ]
    heads = ("format", "kB", "largest difference", "answers changed", "accuracy, %", "CPU ms an image")
    return bundle_card(
        name=bundle.name,
        model=bundle.model,
        classes=bundle.classes,
        preprocessing=bundle.preprocessing.plain,
        results=bundle.results,
        source=str(bundle.recipe.get("data", "")),
        formats=formats,
        table=[heads, *rows],
        environment=verification.environment,
    )
