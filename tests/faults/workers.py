"""Images that other processes decode, and such a process that is killed."""

import multiprocessing
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from resnetlab.core.errors import DataError
from resnetlab.data.dataset import ImageData
from resnetlab.data.encoded import EncodedSplit
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import fit
from tests.conftest import make_data, moments_of
from tests.faults import processes
from tests.faults.images import encoded
from tests.faults.processes import Pool
from tests.faults.runs import equals, kept

EPOCHS, STEPS = 3, 6


def encoded_data(workers: int) -> ImageData:
    """The small images of the tests, as PNG files in memory that are decoded in each epoch anew."""
    data = make_data()

    def split(images: np.ndarray, labels: torch.Tensor) -> EncodedSplit:
        files = [encoded(Image.fromarray(image[0]).convert("RGB"), "PNG") for image in images]
        return EncodedSplit(
            store=files,
            labels=labels,
            side=images.shape[-1],
            moments=moments_of(torch.from_numpy(images).repeat(1, 3, 1, 1)),
            identity="0" * 64,
            encoding="lossless",
            workers=workers,
        )

    parts = {
        name: split(part.images.numpy(), part.labels) for name, part in (("train", data.train), ("test", data.test))
    }
    return ImageData(source="made", classes=data.classes, **parts)


class KillWorker(NoCallback):
    """Behind the given step kills a process that decodes images."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, steps: int, stats: object) -> None:
        if step == self.step:
            workers = multiprocessing.active_children()
            if workers:
                os.kill(workers[step % len(workers)].pid, signal.SIGKILL)
                # Until then the death of a child may not have been told.
                time.sleep(0.1)


def fit_encoded(out: Path, workers: int, kill_at: int | None) -> str:
    """Train; the message of the error where there is one."""
    from resnetlab.models.zoo import create_model

    net = create_model("cifar_resnet8", in_chans=3, num_classes=3, widths=(4, 8, 16), stem_width=4)
    config = TrainConfig(epochs=EPOCHS, batch_size=16, save_every=2)
    callback = KillWorker(kill_at) if kill_at is not None else None
    try:
        fit(net, encoded_data(workers), config, seed=0, out=out, callback=callback)
    except DataError as error:
        return str(error)
    return ""


def worker(count: int, seed: int, pool: Pool | None = None) -> dict[str, Any]:
    """``count`` runs with one or two decoding processes, one of which is killed at a random step.

    The error must say what happened, or the process had done its work; resumed, with no such process, the run must end
    in the bits of the undisturbed one. Control: without a resume the run is not at its end.
    """
    pool = pool or Pool()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert processes.call(fit_encoded, folder / "undisturbed", 0, None) == ""
        expected = kept(folder / "undisturbed")
        jobs = [(folder / str(number), f"{seed}/{number}", 1 + number % 2, expected) for number in range(count)]
        cases = pool.map(_case, jobs)
    return {
        "n": count,
        "held": sum(held for held, _, _ in cases),
        "noticed": sum(noticed for _, noticed, _ in cases),
        "control_n": sum(noticed for _, noticed, _ in cases),
        "control_lost": sum(unfinished for _, _, unfinished in cases),
    }


def _case(out: Path, draw: str, workers: int, expected: dict[str, Any]) -> tuple[bool, bool, bool]:
    message = processes.call(fit_encoded, out, workers, random.Random(draw).randint(3, EPOCHS * STEPS - 1))
    unfinished = not (out / "metrics.jsonl").exists() or kept(out) != expected
    clear = message == "" or ("was killed" in message and "goes on from its last checkpoint" in message)
    again = processes.call(fit_encoded, out, 0, None)
    return clear and again == "" and equals(out, expected, EPOCHS), message != "", bool(message) and unfinished
