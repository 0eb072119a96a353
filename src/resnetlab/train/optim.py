"""Optimizers and schedules. A learning rate is a function of the step, so a schedule has no state to save."""

from copy import deepcopy
from math import cos, pi

import torch
from torch import nn

from resnetlab.train.config import TrainConfig
from resnetlab.train.normalised import LARS, NormalisedSGD, SignSGD

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4
ONE_CYCLE_WARMUP = 0.3
CAUTIOUS = 0.1
"""Share of the rate until ``warmup_until_error`` is reached: 0.01 of 0.1 (He et al. 2015, §4.2)."""
HEAD = "head."


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer over what is ever trained of ``net``; weights decay, and with ``decay_all`` norms and biases too.

    "No bias decay": Jia et al. 2018, arXiv:1807.11205; He et al. 2018, arXiv:1812.01187, §3.1. Where the head has a
    rate of its own, its parameters are groups of their own; ``rate_factor`` of a group is its rate over the common one.
    LARS adapts the rates of weights alone.
    """
    trained = [(name, p) for name, p in net.named_parameters() if p.requires_grad or config.freeze_epochs]
    heads = (False, True) if config.head_lr is not None else (False,)
    groups = []
    for head in heads:
        factor = config.head_lr / config.lr if head and config.head_lr is not None else 1.0
        here = [p for name, p in trained if len(heads) == 1 or name.startswith(HEAD) == head]
        decayed, free = [p for p in here if p.dim() > 1], [p for p in here if p.dim() <= 1]
        rest = config.weight_decay if config.decay_all else 0.0
        groups += [
            {"params": decayed, "weight_decay": config.weight_decay, "rate_factor": factor, "adapts": True},
            {"params": free, "weight_decay": rest, "rate_factor": factor, "adapts": False},
        ]
    # What torch chooses by itself, by looking at every parameter at every step.
    foreach = False if all(p.is_cpu for _, p in trained) else None
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, foreach=foreach)
    if config.optimizer == "lars":
        return LARS(groups, config.lr, config.momentum)
    if config.optimizer == "normalised_sgd":
        return NormalisedSGD(groups, config.lr, config.momentum, nesterov=config.nesterov)
    if config.optimizer == "signsgd":
        return SignSGD(groups, config.lr, config.momentum)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, foreach=foreach)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]


def clear_gradients(optimizer: torch.optim.Optimizer) -> None:
    """As ``optimizer.zero_grad(set_to_none=True)``, without its mark for a profiler, which takes longer than the
    rest."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def total_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """Steps of the whole run: its epochs, or ``max_steps`` where that is less."""
    steps = config.epochs * steps_per_epoch
    return steps if config.max_steps is None else min(steps, config.max_steps)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int, warm: bool = True) -> float:
    """The rate of a step, counted from 0 over the whole run.

    - ``one-cycle``: half a cosine from lr/25 up to lr, then half a cosine down to lr/250,000 (Smith & Topin 2017,
      arXiv:1708.07120; the constants are torch's, whose default moves the momentum too, as this does not).
    - ``cosine``: lr · (1 + cos πt) / 2, where t runs from 0 to 1 after the warm-up.
    - ``step``: lr · gamma^(milestones passed).
    - ``constant``: lr.

    The warm-up of the last three is linear, (step + 1) / steps of warm-up. Until the training error has fallen below
    ``warmup_until_error``, when it is ``warm``, a tenth of the rate is used.
    """
    if config.schedule == "one-cycle":
        return config.lr * _one_cycle(config, step, steps_per_epoch)
    warmup = _warmup_steps(config, steps_per_epoch) or 0.0
    if step < warmup:
        return config.lr * min(1.0, (step + 1) / warmup)
    caution = 1.0 if warm else CAUTIOUS
    if config.schedule == "cosine":
        total = total_steps(config, steps_per_epoch)
        return caution * config.lr * (1 + cos(pi * (step - warmup) / max(1.0, total - warmup))) / 2
    if config.schedule == "step":
        marks = config.milestone_steps or [milestone * steps_per_epoch for milestone in config.milestones]
        return caution * config.lr * config.gamma ** sum(step >= mark for mark in marks)
    return caution * config.lr


def _warmup_steps(config: TrainConfig, steps_per_epoch: int) -> float | None:
    if config.warmup_steps is not None:
        return config.warmup_steps
    return None if config.warmup_epochs is None else config.warmup_epochs * steps_per_epoch


def _one_cycle(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    total = total_steps(config, steps_per_epoch)
    warmup = _warmup_steps(config, steps_per_epoch)
    top = max(0.0, (ONE_CYCLE_WARMUP * total if warmup is None else warmup) - 1)
    if step < top:
        return _half_cosine(ONE_CYCLE_START, 1.0, step / top)
    return _half_cosine(1.0, ONE_CYCLE_END, (step - top) / max(1.0, total - 1 - top))


def _half_cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + cos(pi * t)) / 2


class Ema:
    """``net`` follows the trained network: each tensor e becomes d·e + (1 - d)·w after a step.

    d is the decay, but at most (1 + t) / (10 + t) at step t, so that the first weights, which are random, fade quickly.
    Counters are copied.
    """

    def __init__(self, trained: nn.Module, decay: float) -> None:
        self.net = deepcopy(trained).requires_grad_(False).eval()
        self.decay = decay
        theirs, ours = trained.state_dict(keep_vars=True), self.net.state_dict()
        averaged = [name for name, value in ours.items() if value.is_floating_point()]
        copied = [name for name in ours if name not in averaged]
        self._averaged = [ours[name] for name in averaged], [theirs[name] for name in averaged]
        self._copied = [ours[name] for name in copied], [theirs[name] for name in copied]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the trained network after ``step``, counted from 0."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self._averaged, share)
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)
