"""Compare an exported format with the trained network that it was made of, and judge whether it computes the same."""

from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetlab.core.errors import ExportError, printable
from resnetlab.data.decode import Pixels
from resnetlab.deploy.engines import Logits, Predictor
from resnetlab.deploy.load import TrainedNetwork

BATCH = 32
LIMIT = 1e-5
"""Largest difference of a logit of a float32 format, relative to the largest |logit| of all images. The largest that a
right one was seen to have is 3e-6, and logits of an untrained net go into the millions: no absolute limit fits."""


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What int8 has to pass: at most ``max_drop`` points less accuracy, and at least ``min_agreement`` percent of the
    answers that the trained network gives: accuracy alone hides answers that change for better and for worse. Float32
    formats keep within ``LIMIT``, and change no answer."""

    max_drop: float = 0.5
    min_agreement: float = 97.0


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

    def cells(self, percent: str) -> tuple[str, ...]:
        """Name, kB, relative difference, answers changed, accuracy (``percent`` behind it) and CPU time, as text."""
        return (
            self.name,
            f"{self.bytes / 1000:,.0f}",
            f"{self.relative:.1e}",
            f"{self.changed} of {self.n:,}",
            "" if self.accuracy is None else f"{100 * self.accuracy:.2f}{percent}",
            f"{self.milliseconds:.3g}",
        )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What formats are compared over: pixels ``(N, side, side, C)``, their labels ``(N,)`` if known, the trained
    network's logits ``(N, K)`` and the CPU time that it took, in milliseconds an image."""

    pixels: Pixels
    labels: NDArray[np.int64] | None
    logits: Logits
    milliseconds: float


def evidence_of(trained: TrainedNetwork, pixels: Pixels, labels: NDArray[np.int64] | None = None) -> Evidence:
    """The trained network's logits of those pixels. Raises ``ExportError`` where they are not finite."""
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


def compare(predictor: Predictor, evidence: Evidence, gates: Gates) -> FormatCheck:
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
        passed = drop <= gates.max_drop and 100 * (1 - changed / n) >= gates.min_agreement
    else:
        passed = relative <= LIMIT and changed == 0
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


def failure(check: FormatCheck, eager: FormatCheck, gates: Gates) -> str:
    """Why a format does not pass, and what to do."""
    agree = f"{100 * check.agreement:.2f} % of {check.n:,} answers agree"
    if check.name != "int8":
        return (
            f"{check.name} does not compute what the trained network does, and nothing was kept: its logits differ by "
            f"{check.relative:.1e} of the largest (at most {LIMIT:.0e}), and {agree} (all must); export to another "
            "format, and tell us of it"
        )
    before, after = 100 * (eager.accuracy or 0), 100 * (check.accuracy or 0)
    return (
        f"int8 is below its gate, and nothing was kept: accuracy {after:.2f} % instead of {before:.2f} % (at most "
        f"{gates.max_drop:g} points less), and {agree} (at least {gates.min_agreement:g} %); calibrate with more "
        "images (--calibrate), use openvino in float32, or allow it (--max-drop, "
        "--min-agreement)"
    )
