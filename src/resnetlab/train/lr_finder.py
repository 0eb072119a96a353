"""The learning-rate range test: some steps of training with a rate that grows until the loss explodes."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from math import isfinite

import torch
from torch import nn

from resnetlab.core.errors import DivergedError, require
from resnetlab.core.randomness import derive_seed
from resnetlab.data.dataset import ImageData
from resnetlab.records.lr_curve import LrCurve, has_exploded, ramp, smooth, suggest
from resnetlab.train.callbacks import Callback, NoCallback
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import Trainer
from resnetlab.train.optim import set_rate
from resnetlab.train.prepare import make_loader, pick_device, training_mode


def find_lr(
    net: nn.Module,
    data: ImageData,
    config: TrainConfig,
    *,
    seed: int,
    steps: int = 100,
    lowest: float = 1e-6,
    highest: float = 10.0,
    callback: Callback | None = None,
) -> LrCurve:
    """Train a copy of ``net`` with a rate that grows from ``lowest`` to ``highest`` over ``steps`` steps.

    Everything else is as in ``fit`` with ``config``: images, order, optimizer, frozen parts, the ratio of the head's
    rate.
    The test ends early where the running loss is four times its lowest, or a loss is no finite number. The same
    arguments give the same curve; ``net`` stays as it is.

    Raises ``ConfigError`` for fewer than 10 steps or rates that do not grow, ``DivergedError`` where the very first
    loss is not finite.
    """
    require(steps >= 10, "steps", steps, "at least 10")
    require(0 < lowest < highest, "lowest, highest", (lowest, highest), "two positive rates, the second the higher")
    callback = callback or NoCallback()
    net, config = deepcopy(net), replace(config, ema=0.0)
    device = pick_device(config.device)
    loader = make_loader(data, config, device, seed, alone=True)
    trainer = Trainer(net, loader, config, seed)
    rates = ramp(lowest, highest, steps)
    losses: list[float] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for loss in _losses(trainer, rates):
            losses.append(loss)
            callback.on_step(len(losses), steps, None)
            if has_exploded(losses):
                break
    if not losses:
        raise DivergedError("the loss of the first step is not finite: the network fails before it is trained")
    smoothed = smooth(losses)
    steepest, minimum = suggest(rates[: len(losses)], smoothed)
    whole = len(losses) == steps and not has_exploded(losses)
    return LrCurve(
        rates=rates[: len(losses)],
        losses=losses,
        smoothed=smoothed,
        steepest=steepest,
        minimum=minimum,
        ended="the highest rate was reached" if whole else "the loss exploded",
    )


def _losses(trainer: Trainer, rates: list[float]) -> Iterator[float]:
    """Take a step with each rate, across epochs, and yield its loss; ends where a loss is not finite."""
    state = trainer.state
    training_mode(state.net, trainer.config)
    for step, rate in enumerate(rates):
        epoch, number = divmod(step, trainer.loader.steps)
        if number == 0:
            state.begin_epoch()
            batches = trainer.loader.shuffled(trainer.seed, epoch + 1)
        torch.manual_seed(derive_seed(trainer.seed, "step", step))
        set_rate(state.optimizer, rate)
        try:
            trainer.take_step(batches, number, step)
        except DivergedError:
            return
        loss = state.losses[number].item()
        if not isfinite(loss):
            return
        yield loss
