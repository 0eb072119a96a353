"""Training resnet18 at 224 pixels from a folder of JPEGs: ours beside torchvision and timm.

python benchmarks/folder_training.py --threads 2 --out folder_training.json

Needs torchvision and timm beside (``make test-reference`` sets up such an environment). JPEGs of 500×375 are made on
the spot. All take random resized crops and mirrors, SGD with momentum, batches of 32 and no workers: torchvision its
``ImageFolder``, transforms and ``resnet18``, timm its loader and ``resnet18``. "tuned" is what ``resnetlab train
--tune`` does on this machine. They take turns of some steps, in a process each; ratios are those within a turn.
"""

import argparse
import os
import sys
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from feed import write_photos
from ours import Ours
from rivals import Batches, bare, folder_batches, load_timm, load_torchvision, timm_batches
from turns import Run, in_process, serve_turns, spread, take_turns

from resnetlab.cli.tune import TUNED, find_tcmalloc, free_main_thread, tuning
from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.data.config import AugmentConfig, DecodeConfig
from resnetlab.data.sources import load_data
from resnetlab.models.zoo import create_model
from resnetlab.train.config import TrainConfig
from resnetlab.train.heap import keep_freed_memory
from resnetlab.train.prepare import make_loader

BATCH, LR = 32, 0.01
NAMES = ("ours", "ours, tuned", "torchvision", "timm", "timm, tuned")


class First:
    """The first ``steps`` batches of a loader, shuffled anew each time."""

    def __init__(self, batches: Batches, steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __iter__(self) -> Any:
        return islice(self.batches, self.steps)


def maker(name: str, photos: Path, steps: int) -> Run:
    """What takes the turns of that name."""
    if name.startswith("ours"):
        keep_freed_memory()
        augment = AugmentConfig(random_resized_crop=True, flip=True)
        config = TrainConfig(epochs=10**5, batch_size=BATCH, lr=LR, augment=augment)
        data = load_data(photos, decode=DecodeConfig(image_size=224, check="head"))
        loader = make_loader(data, config, torch.device("cpu"))
        loader.samples = loader.samples[: steps * BATCH]
        return Ours(create_model("resnet18", num_classes=2), loader, config)
    found, timm = load_torchvision(), load_timm()
    if found is None or timm is None:
        raise SystemExit("torchvision and timm are needed beside; make test-reference sets up such an environment")
    torchvision = found[0]
    if name == "torchvision":
        batches = folder_batches(photos, BATCH, 0, torchvision)
        return bare(torchvision.models.resnet18(num_classes=2), First(batches, steps), LR)
    batches = timm_batches(photos, BATCH, 0, timm)
    return bare(timm.create_model("resnet18", num_classes=2), First(batches, steps), LR)


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--turns", type=int, default=9)
    words.add_argument("--steps", type=int, default=2, help="steps of a turn")
    words.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    words.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="what is counted")
    words.add_argument("--out", type=Path, help="JSON file of the figures")
    words.add_argument("--take", help=argparse.SUPPRESS)
    words.add_argument("--photos", type=Path, help=argparse.SUPPRESS)
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.take:
        free_main_thread()
        serve_turns(maker(asked.take, asked.photos, asked.steps), asked.clock)
        return
    plain = {"OMP_NUM_THREADS": str(asked.threads)}
    tuned = plain | tuning(plain, find_tcmalloc(), os.sched_getaffinity(0))
    with TemporaryDirectory() as place, ExitStack() as stack:
        write_photos(Path(place), max(256, 2 * BATCH * asked.steps))
        runs = {}
        for name in NAMES:
            words_of = [__file__, "--take", name, "--photos", place, "--steps", str(asked.steps)]
            words_of += ["--threads", str(asked.threads), "--clock", asked.clock]
            runs[name] = stack.enter_context(in_process(words_of, tuned if name.endswith(", tuned") else plain))
        seconds = take_turns(runs, asked.turns)
    speeds = {name: [BATCH * asked.steps / value for value in values] for name, values in seconds.items()}
    over = {
        f"{ours} over {other}": spread([a / b for a, b in zip(speeds[ours], speeds[other], strict=True)])
        for ours in NAMES[:2]
        for other in NAMES[2:]
    }
    for name, values in ({name: spread(values) for name, values in speeds.items()} | over).items():
        quartiles = f"{values['quartile_1']:.3f} – {values['quartile_3']:.3f}"
        sys.stdout.write(f"{name:40}{values['median']:10.3f}{quartiles:>24}\n")
    if asked.out:
        found = {"turns": asked.turns, "steps": asked.steps, "clock": asked.clock}
        found |= {"tuned": sorted(tuned.keys() - plain.keys() - {TUNED}), "over": over}
        found |= {"images_per_second": {name: spread(values) for name, values in speeds.items()}}
        write_json(asked.out, found | {"environment": describe_environment("cpu", torch.get_num_threads())})


if __name__ == "__main__":
    main()
