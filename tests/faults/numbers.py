"""Numbers that are not finite: in the data, the loss, a gradient, a weight; and a rate at which the loss explodes."""

import random
import tempfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.core.errors import DivergedError
from resnetlab.core.files import folder_exists, read_folder
from resnetlab.data import loader
from resnetlab.train import checkpoint_manager, loop, state
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.config import TrainConfig
from tests.conftest import make_data
from tests.faults import processes
from tests.faults.processes import Pool
from tests.faults.resume import make

WHERE = ("data", "loss", "gradient", "weight", "rate")
VALUES = (float("nan"), float("inf"))
STEPS, EPOCHS = 6, 4
LAYER = "stages.1.0.branch.conv1.weight"


class AtStep(NoCallback):
    """Does something behind the given step."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self.step, self.action = step, action

    def on_step(self, step: int, steps: int, stats: object) -> None:
        if step == self.step:
            self.action()


def numbers(count: int, seed: int, pool: Pool | None = None) -> dict[str, Any]:
    """``count`` runs into which something not finite comes at a random step: each place in turn, NaN and infinity.

    Each must stop with ``DivergedError`` that names the step or the layer; the last checkpoint that is good must stay,
    be readable and finite, running statistics too, and the network in memory must be that checkpoint, or where there is
    none have finite statistics. Control: the same without the checks at saving and on the way out.
    """
    pool = pool or Pool()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shares = [list(range(first, min(first + 10, count))) for first in range(0, count, 10)]
        jobs = [
            (_share, folder / f"{protected}-{share[0]}", [(n, f"{seed}/{n}") for n in share], protected)
            for protected in (True, False)
            for share in shares
        ]
        results = pool.map(processes.call, jobs)
    half = len(shares)
    cases, controls = (list(chain(*some)) for some in (results[:half], results[half:]))
    return {
        "n": count,
        "held": sum(all(case.values()) for case in cases),
        "failures": sorted({key for case in cases for key, value in case.items() if not value}),
        "control_n": count,
        "control_lost": sum(not all(case.values()) for case in controls),
    }


def _share(out: Path, cases: list[tuple[int, str]], protected: bool) -> list[dict[str, bool]]:
    if not protected:
        state.TrainingState.is_finite = lambda _: True  # type: ignore[method-assign]
        loop.forget_broken_statistics = lambda _: None
    return [_case(out / str(number), number, draw, protected) for number, draw in cases]


def _case(out: Path, number: int, draw: str, protected: bool) -> dict[str, bool]:
    rng = random.Random(draw)
    where, value = WHERE[number % len(WHERE)], VALUES[number // len(WHERE) % 2]
    # Its last step too, after which only the evaluation can notice.
    step = rng.randint(1, STEPS * EPOCHS - 1)
    net, settings = make({}), {"epochs": EPOCHS, "batch_size": 16, "save_every": 1, "schedule": "constant"}
    settings |= rng.choice(({}, {"ema": 0.9}, {"optimizer": "adamw"}, {"clip_norm": 1.0}))
    if where == "rate":
        settings |= {"lr": 1e30}
    undo, callback, named = _arrange(net, where, value, step)
    keep_resuming = checkpoint_manager.CheckpointManager.resume
    message = ""
    try:
        if not protected:
            checkpoint_manager.CheckpointManager.resume = lambda *_: None  # type: ignore[method-assign]
        loop.fit(net, make_data(), TrainConfig(**settings), seed=0, out=out, callback=callback)
    except DivergedError as error:
        message = str(error)
    finally:
        undo()
        checkpoint_manager.CheckpointManager.resume = keep_resuming  # type: ignore[method-assign]
    return {"says where": any(name in message for name in named), **_what_is_left(out, net)}


def _arrange(
    net: nn.Module, where: str, value: float, step: int
) -> tuple[Callable[[], None], NoCallback, tuple[str, ...]]:
    """Arrange that the value comes in with the step (counted from 1): how to undo it, the callback that does it, and
    what the message must name."""
    if where == "data":
        return _poison_data(value, step), NoCallback(), (f"the images of step {step} are not finite",)
    if where == "loss":
        return _poison_loss(value, step), NoCallback(), (f"at step {step}: it began in the loss",)
    parameter = dict(net.named_parameters())[LAYER]
    if where == "gradient":
        calls = iter(range(1, 10**6))
        handle = parameter.register_hook(lambda grad: grad + (value if next(calls) == step else 0))
        # In the layers before it the gradient is not finite either, and with clipping in none is.
        return handle.remove, NoCallback(), (f"since the update of step {step}", "since its last step")
    if where == "weight":
        poison = AtStep(step, lambda: parameter.data[0, 0, 0].fill_(value))
        return lambda: None, poison, (f"{LAYER} is not finite", "since its last step")
    return lambda: None, NoCallback(), ("is not finite since the update of step", "it began in", "since its last step")


def _poison_data(value: float, step: int) -> Callable[[], None]:
    shuffled, steps = loader.Loader.shuffled, iter(range(1, 10**6))

    def poisoned(self: loader.Loader, *args: Any, **kwargs: Any) -> Any:
        for images, labels in shuffled(self, *args, **kwargs):
            if next(steps) == step:
                images[0, 0, 0, 0] = value
            yield images, labels

    loader.Loader.shuffled = poisoned  # type: ignore[method-assign]
    return lambda: setattr(loader.Loader, "shuffled", shuffled)


def _poison_loss(value: float, step: int) -> Callable[[], None]:
    steps = iter(range(1, 10**6))

    class Functions:
        """What the loop calls F."""

        @staticmethod
        def cross_entropy(logits: Tensor, labels: Tensor, **settings: Any) -> Tensor:
            loss = F.cross_entropy(logits, labels, **settings)
            return loss + value if next(steps) == step else loss

    loop.F = Functions
    return lambda: setattr(loop, "F", F)


def _what_is_left(out: Path, net: nn.Module) -> dict[str, bool]:
    """What the run's folder and the network in memory must be after it diverged."""
    statistics = all(bool(buffer.isfinite().all()) for buffer in net.buffers())
    if not folder_exists(out / "last"):
        return {"statistics are finite": statistics}
    kept = read_checkpoint(out / "last")
    # Not Adam's second moments: the square of a gradient of 1e20 overflows, while weights and losses still are numbers.
    state = [value for name, value in kept.training.items() if not name.startswith("optimizer/")]
    tensors = [*kept.model.values(), *state]
    ours = net.state_dict()
    return {
        "statistics are finite": statistics,
        "the newest version is whole": read_folder(out / "last")[0] == out / "last",
        "the checkpoint is finite": all(bool(tensor.isfinite().all()) for tensor in tensors),
        "the network is the checkpoint": all(torch.equal(ours[name], value) for name, value in kept.model.items()),
    }
