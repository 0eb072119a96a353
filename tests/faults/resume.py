"""Runs that stop within an epoch and go on, under every setting; and runs that get worse after they went on."""

import os
import random
import signal
import tempfile
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from resnetlab.core.errors import StoppedError
from resnetlab.data.config import AugmentConfig
from resnetlab.data.dataset import ImageData
from resnetlab.records.run import EpochRecord, rank_epochs
from resnetlab.train import checkpoint_manager, loop, state
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.config import TrainConfig
from resnetlab.train.gradients import GradientTrace
from resnetlab.train.prepare import make_loader
from resnetlab.train.signals import StopRequest
from tests.conftest import make_data
from tests.faults import processes
from tests.faults.processes import Pool
from tests.faults.runs import StopAt, equals, kept
from tests.faults.workers import encoded_data

STEPS, EPOCHS = 6, 3


@dataclass(frozen=True)
class Setting:
    """What is set beside the usual for one case."""

    training: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    workers: int | None = None
    """Processes that decode images; without them the images are in memory."""


SETTINGS = {
    "plain": Setting(),
    "accumulation": Setting({"accumulate": 4}),
    "average": Setting({"ema": 0.9}),
    "bf16": Setting({"precision": "bf16"}),
    "fp16": Setting({"precision": "fp16"}),
    "mixup": Setting({"augment": AugmentConfig(mixup=0.4)}),
    "cutmix": Setting({"augment": AugmentConfig(cutmix=1.0)}),
    "RandAugment and erasing": Setting({"augment": AugmentConfig(policy="rand", erasing=0.5, flip=True)}),
    "stochastic depth": Setting(network={"stochastic_depth": 0.5}),
    "clipping": Setting({"clip_norm": 0.5}),
    "AdamW": Setting({"optimizer": "adamw", "lr": 3e-3}),
    "balanced": Setting({"sampler": "balanced", "class_weights": "balanced"}),
    "top 2": Setting({"keep_top": 2}),
    "checkpointed blocks": Setting({"checkpoint_blocks": 1}),
    "warm-up until an error": Setting({"warmup_until_error": 0.9, "schedule": "constant"}),
    "decoding here": Setting(workers=0),
    "1 worker": Setting(workers=1),
    "2 workers": Setting(workers=2),
    "steps within an epoch": Setting({"max_steps": 16, "schedule": "cosine"}),
    "everything": Setting(
        {
            "accumulate": 2,
            "ema": 0.9,
            "precision": "bf16",
            "augment": AugmentConfig(mixup=0.4, cutmix=1.0, cutout=2),
            "optimizer": "adamw",
            "clip_norm": 0.5,
            "keep_top": 2,
            "checkpoint_blocks": 1,
        },
        {"stochastic_depth": 0.5},
    ),
}
CONTROLS = {"average": "raw weights", "AdamW": "optimizer", "plain": "optimizer"}
"""Settings, and what a resume forgets in the control."""


class KillAt(NoCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, steps: int, stats: object) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def make(network: dict[str, Any], seed: int = 0) -> torch.nn.Module:
    from resnetlab.models.zoo import create_model

    sizes = {"in_chans": 1, "num_classes": 3, "widths": (4, 8, 16), "stem_width": 4}
    return create_model("cifar_resnet8", seed=seed, **sizes | network)


def fit_setting(out: Path, name: str, kill_at: int | None, stop_at: int | None, forget: str | None) -> None:
    """Train with the setting, killed or stopped behind a step, or to the end; ``forget`` what a resume must not."""
    setting = SETTINGS[name]
    config = TrainConfig(**{"epochs": EPOCHS, "batch_size": 16, "save_every": 2} | setting.training)
    # With the usual 50 steps between two looks such a short run would never be warm.
    loop.WARM_WINDOW = 4
    if forget == "optimizer":
        state.restore_optimizer = lambda *_: None
    if forget == "raw weights":
        _forget_raw_weights()
    stop = StopRequest()
    callback = KillAt(kill_at) if kill_at is not None else StopAt(stop, stop_at) if stop_at is not None else None
    try:
        data = make_data() if setting.workers is None else encoded_data(setting.workers)
        net = make(setting.network | {"in_chans": data.in_chans})
        batch = next(make_loader(data, replace(config, accumulate=1), torch.device("cpu")).shuffled(0, epoch=1))
        trace = GradientTrace(net, batch, seed=0)
        loop.fit(net, data, config, seed=0, out=out, callback=callback, stop=stop, trace=trace.between)
    except StoppedError:
        assert stop_at is not None


def _forget_raw_weights() -> None:
    restore = state.TrainingState.restore

    def with_the_average(self: state.TrainingState, checkpoint: Any) -> None:
        restore(self, checkpoint)
        self.net.load_state_dict(checkpoint.model)

    state.TrainingState.restore = with_the_average  # type: ignore[method-assign]


def resume(count: int, seed: int, pool: Pool | None = None) -> dict[str, Any]:
    """``count`` runs, the settings in turn, each stopped at a random step by a request or by kill -9, and resumed.

    Each must end in the bits of the undisturbed run. Control: a resume that forgets the optimizer's state, or the
    trained weights behind the moving average.
    """
    pool = pool or Pool()
    names = [list(SETTINGS)[number % len(SETTINGS)] for number in range(count)]
    used = dict.fromkeys([*names, *CONTROLS])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wholes = {name: folder / f"whole-{number}" for number, name in enumerate(used)}
        pool.map(processes.run, [(fit_setting, out, name, None, None, None) for name, out in wholes.items()])
        expected = {name: kept(out) for name, out in wholes.items()}
        jobs = []
        for number, setting in enumerate(names):
            rng = random.Random(f"{seed}/{number}")
            last = SETTINGS[setting].training.get("max_steps", STEPS * EPOCHS)
            way = ("kill", "stop")[(number + number // len(SETTINGS)) % 2]
            jobs.append((folder / str(number), setting, way, rng.randint(1, last - 1), None, expected[setting]))
        held = pool.map(_is_equal, jobs)
        controls = [
            (folder / f"c-{number}-{step}", setting, "stop", step, forget, expected[setting])
            for number, (setting, forget) in enumerate(CONTROLS.items())
            for step in range(8, 8 + max(1, count // 40))
        ]
        equal = pool.map(_is_equal, controls)
    return {
        "n": count,
        "held": sum(held),
        "settings": len(set(names)),
        "broken": sorted({job[1] for job, whole in zip(jobs, held, strict=True) if not whole}),
        "control_n": len(controls),
        "control_lost": equal.count(False),
    }


def _is_equal(out: Path, setting: str, way: str, step: int, forget: str | None, expected: dict[str, Any]) -> bool:
    kill_at, stop_at = (step, None) if way == "kill" else (None, step)
    code = processes.finish(processes.start(fit_setting, out, setting, kill_at, stop_at, None))
    assert code == (-signal.SIGKILL if way == "kill" else 0), f"{setting} ended with {code}"
    processes.run(fit_setting, out, setting, None, None, forget)
    return equals(out, expected, EPOCHS)


class Spoil(NoCallback):
    """From some step on adds noise to the weights behind every step."""

    def __init__(self, net: torch.nn.Module) -> None:
        self.net = net

    def on_step(self, step: int, steps: int, stats: object) -> None:
        with torch.no_grad():
            for parameter in self.net.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))


def worse(count: int, seed: int, pool: Pool | None = None) -> dict[str, int]:
    """Runs that are stopped after three to five epochs, and whose later epochs are worse.

    best/ must keep the best epoch, to the byte. Control: a checkpoints that takes each new epoch for the best.
    """
    pool = pool or Pool()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Cases are small: a child does ten.
        shares = [list(range(first, min(first + 10, count))) for first in range(0, count, 10)]
        jobs = [
            (_worse_runs, folder / f"{protected}-{share[0]}", [f"{seed}/{n}" for n in share], protected)
            for protected in (True, False)
            for share in shares
        ]
        results = pool.map(processes.call, jobs)
    half = len(shares)
    cases, controls = (list(chain(*some)) for some in (results[:half], results[half:]))
    return {
        "n": count,
        "held": sum(kept_best for kept_best, _ in cases),
        "ended_worse": sum(is_worse for _, is_worse in cases),
        "control_n": count,
        "control_lost": sum(not kept_best for kept_best, _ in controls),
    }


def _worse_runs(out: Path, draws: list[str], protected: bool) -> list[tuple[bool, bool]]:
    if not protected:
        checkpoint_manager.rank_epochs = lambda history, *_: history[::-1]
    return [_worse_run(out / str(number), draw) for number, draw in enumerate(draws)]


def _worse_run(out: Path, draw: str) -> tuple[bool, bool]:
    """Whether best/ still holds what it held when the run was stopped, and whether all later epochs were worse."""
    rng = random.Random(draw)
    data, before, seed = make_data(validation=40), rng.choice((3, 4, 5)), rng.randrange(1000)
    # A crop would shift the rows that these images are told apart by.
    config = TrainConfig(epochs=7, batch_size=16, augment=AugmentConfig(crop_padding=0))
    stop, net = StopRequest(), make({}, seed)
    step = before * STEPS + rng.randint(1, STEPS - 1)
    history = _stopped(net, data, config, seed, out, StopAt(stop, step), stop)
    best = checkpoint_manager.read_folder(out / "best")[1]["model.safetensors"]
    epoch = rank_epochs(history)[0]
    net = make({}, seed)
    later = loop.fit(net, data, config, seed=seed, out=out, callback=Spoil(net))[len(history) :]
    is_kept = checkpoint_manager.read_folder(out / "best")[1]["model.safetensors"] == best
    return is_kept, all(record.validation.error > epoch.validation.error for record in later)


def _stopped(
    net: torch.nn.Module,
    data: ImageData,
    config: TrainConfig,
    seed: int,
    out: Path,
    callback: NoCallback,
    stop: StopRequest,
) -> list[EpochRecord]:
    from resnetlab.train.checkpoint import read_checkpoint

    try:
        loop.fit(net, data, config, seed=seed, out=out, callback=callback, stop=stop)
    except StoppedError:
        return read_checkpoint(out / "last").history
    raise AssertionError("the run was not stopped")
