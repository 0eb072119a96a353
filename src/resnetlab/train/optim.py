"""Optimizers and schedules. A learning rate is a function of the step, so a schedule has no state to save."""

from math import cos, pi

import torch
from torch import nn

from resnetlab.train.config import TrainConfig

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4
ONE_CYCLE_WARMUP = 0.3


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over two groups of parameters: weights, which decay, and norms and biases, which do not.

    "No bias decay": Jia et al. 2018, arXiv:1807.11205; He et al. 2018, arXiv:1812.01187, §3.1.
    """
    parameters = list(net.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The rate of a step, counted from 0 over the whole run.

    - ``one-cycle``: half a cosine from lr/25 up to lr, then half a cosine down to lr/250,000 (Smith & Topin 2017,
      arXiv:1708.07120; the constants are torch's, whose default moves the momentum too, as this does not).
    - ``cosine``: lr · (1 + cos πt) / 2, where t runs from 0 to 1 after the warm-up.
    - ``step``: lr · gamma^(milestones passed).
    - ``constant``: lr.

    The warm-up of the last three is linear, (step + 1) / steps of warm-up.
    """
    if config.schedule == "one-cycle":
        return config.lr * _one_cycle(config, step, steps_per_epoch)
    warmup = (config.warmup_epochs or 0) * steps_per_epoch
    if step < warmup:
        return config.lr * min(1.0, (step + 1) / warmup)
    if config.schedule == "cosine":
        total = config.epochs * steps_per_epoch
        return config.lr * (1 + cos(pi * (step - warmup) / (total - warmup))) / 2
    if config.schedule == "step":
        passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
        return config.lr * config.gamma**passed
    return config.lr


def _one_cycle(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    share = ONE_CYCLE_WARMUP if config.warmup_epochs is None else config.warmup_epochs / config.epochs
    last = config.epochs * steps_per_epoch - 1
    top = max(0.0, share * config.epochs * steps_per_epoch - 1)
    if step < top:
        return _half_cosine(ONE_CYCLE_START, 1.0, step / top)
    return _half_cosine(1.0, ONE_CYCLE_END, (step - top) / max(1.0, last - top))


def _half_cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + cos(pi * t)) / 2
