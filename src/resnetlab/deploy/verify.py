"""Verify a bundle anywhere: its files by their sums, its engines by the golden images. torch is loaded by its own
engine alone."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnetlab.core.errors import CheckpointError, ConfigError, MissingExtraError, printable
from resnetlab.deploy.bundle import Bundle, checked, read_bundle
from resnetlab.deploy.engines import FILES, Predictor, open_predictor
from resnetlab.deploy.golden import golden_pixels, read_golden

BATCH = 8
NAMED = 3
"""Images that an error names."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """An engine that gave the logits of ``n`` golden images: the largest difference, and the one that it may have,
    relative to the largest |logit|. ``missing`` is why it could not be tried here."""

    engine: str
    n: int = 0
    difference: float = 0.0
    tolerance: float = 0.0
    missing: str = ""


def verify(folder: Path, engine: str = "auto", threads: int = 0) -> list[Verified]:
    """Compare the files of the bundle in ``folder`` with their sums, and the logits of its golden images with those
    that were kept: by ``engine``, or by torch and every exported format whose library is installed.

    Raises ``CheckpointError`` naming the file, or the images, that differ; ``ConfigError`` for a format that the bundle
    has not, ``MissingExtraError`` for an engine that is not installed. torch computes on the CPU: a GPU rounds more.
    """
    bundle = read_bundle(folder)
    for name in bundle.files:
        checked(bundle, folder, name)
    if engine != "auto":
        return [verify_engine(open_predictor(folder, engine, threads=threads, device="cpu"), bundle, folder)]  # type: ignore[arg-type]
    found = []
    for name in ("torch", *(name for name, file in FILES.items() if file in bundle.files)):
        try:
            predictor = open_predictor(folder, name, threads=threads, device="cpu")  # type: ignore[arg-type]
        except MissingExtraError as error:
            found.append(Verified(engine=name, missing=str(error)))
        else:
            found.append(verify_engine(predictor, bundle, folder))
    return found


def verify_engine(predictor: Predictor, bundle: Bundle, folder: Path) -> Verified:
    """Compare the logits that ``predictor`` gives of the golden images with those that were kept.

    Raises ``CheckpointError`` naming the images that differ.
    """
    golden = read_golden(bundle, folder)
    if predictor.engine not in golden.tolerance:
        raise ConfigError(f"{printable(folder)} says no tolerance for {predictor.engine}; export it again")
    tolerance, kept = golden.tolerance[predictor.engine], golden.logits
    pixels = golden_pixels(folder, [image.file for image in golden.images], predictor.preprocessing)
    found = np.concatenate([predictor.logits(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)])
    differences = np.abs(found - kept).max(axis=1) / np.abs(kept).max()
    # Written so that a NaN is wrong too.
    wrong = np.flatnonzero(~(differences <= tolerance))
    if len(wrong):
        named = []
        for number in wrong[:NAMED]:
            image, answer = golden.images[number], predictor.classes[int(found[number].argmax())]
            words = "the answer is the same" if answer == image.answer else f"{answer} instead of {image.answer}"
            named.append(f"{image.file}: {differences[number]:.2g}, {printable(words)}")
        raise CheckpointError(
            f"{predictor.engine} does not give the logits of {len(wrong)} of the {len(kept)} golden images of "
            f"{printable(folder)}; difference over the largest logit, at most {tolerance:.2g}: {'; '.join(named)}"
            + (f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else "")
            + ". Another version of a library, or of what reads the images, computes otherwise here; export it again"
        )
    return Verified(
        engine=predictor.engine, n=len(kept), difference=float(differences.max()), tolerance=float(tolerance)
    )
