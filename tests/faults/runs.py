"""Small runs to be disturbed, and what must be equal afterwards."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from resnetlab.core.files import MANIFEST, digest, read_folder
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import run_recipe
from resnetlab.train.signals import StopRequest

EPOCHS, STEPS = 3, 10
SMALL = Recipe(
    model="cifar_resnet8",
    options={"widths": "[4,8,16]", "stem_width": "4"},
    training=TrainConfig(epochs=EPOCHS, batch_size=128, save_every=2, save_every_seconds=0),
)
"""30 steps, a second or so, with a checkpoint after every other step."""

WORDS = (
    "--model cifar_resnet8 --options widths [4,8,16] stem_width 4 "
    f"--epochs {EPOCHS} --batch-size 128 --save-every 2 --save-every-seconds 0 --resume auto"
).split()
"""The same run on the command line."""


def with_training(**settings: Any) -> Recipe:
    return replace(SMALL, training=replace(SMALL.training, **settings))


def train(out: Path, recipe: Recipe = SMALL) -> None:
    """Begin the run, or resume it. Its page is drawn from its record, and not here: it would take most of the time."""
    run_recipe(recipe, out, resume=True, page=False)


def command(*words: str) -> None:
    """What ``python -m resnetlab`` does, in a process that has loaded everything."""
    from resnetlab.cli.main import run

    run(words)


class StopAt(NoCallback):
    """Asks to stop behind the given step, as a signal would."""

    def __init__(self, stop: StopRequest, step: int) -> None:
        self.stop, self.step = stop, step

    def on_step(self, step: int, steps: int, stats: object) -> None:
        if step == self.step:
            self.stop.signal = signal.SIGTERM


class Notes(NoCallback):
    """Keeps the notes of a run."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)


def kept(out: Path) -> dict[str, Any]:
    """All that a run's end is made of: sums of the tensors of every checkpoint, its gradients' trace, and its
    epochs without their times.

    Raises ``CheckpointError`` where one cannot be read.
    """
    folders = [out / "last", out / "best", *sorted((out / "top").glob("epoch-????"))]
    found: dict[str, Any] = {}
    for folder in folders:
        _, files = read_folder(folder)
        for name, data in files.items():
            if name.endswith(".safetensors"):
                found[f"{folder.name}/{name}"] = digest(data)
        state = json.loads(files["state.json"])
        found[f"{folder.name}/state.json"] = [state["step"], state["warm_since"], state["scaler"], state["moments"]]
        found[f"{folder.name}/history"] = [_without_times(epoch) for epoch in state["history"]]
    lines = (out / "metrics.jsonl").read_text().splitlines()
    found["metrics.jsonl"] = [_without_times(json.loads(line)) for line in lines]
    return found


def _without_times(epoch: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in epoch.items() if key not in ("seconds", "images_per_second")}


def is_whole(out: Path, epochs: int = EPOCHS) -> bool:
    """Whether metrics.jsonl has each epoch once."""
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["epoch"] for line in lines] == list(range(1, epochs + 1))


def equals(out: Path, expected: dict[str, Any], epochs: int = EPOCHS) -> bool:
    """Whether the run ended in the bits of the undisturbed one, with each epoch once."""
    return kept(out) == expected and is_whole(out, epochs)


def was_writing(out: Path) -> bool:
    """Whether a process was killed while it wrote: something half-written lies there."""
    halves = [folder for folder in out.glob("*.next") if not (folder / MANIFEST).is_file()]
    return bool(halves) or any(True for _ in out.rglob(".*.tmp"))
