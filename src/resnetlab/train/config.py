"""The settings of a training run. This file loads no torch, so that the command line can read it quickly."""

from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from resnetlab.errors import require, require_choice

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["one-cycle", "cosine", "step", "constant"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained.

    Raises ``ConfigError`` for values that make no run.
    """

    epochs: int = 8
    """Passes over the training set."""
    batch_size: int = 64
    """Pictures a step. The incomplete batch at the end of a pass is left out."""
    optimizer: Optimizer = "sgd"
    """sgd, or adamw (betas 0.9 and 0.999)."""
    lr: float = 0.05
    """The highest learning rate of the schedule."""
    momentum: float = 0.9
    """Momentum of sgd."""
    nesterov: bool = True
    """Nesterov's form of the momentum."""
    weight_decay: float = 5e-4
    """Weight decay (sgd: L2 penalty; adamw: decoupled), on weights and never on norms and biases."""
    schedule: Schedule = "one-cycle"
    """one-cycle: up and down by cosines. cosine: down to 0. step: divided at milestones. constant."""
    warmup_epochs: float | None = None
    """Epochs of rising rate at the start; 30 % of all epochs for one-cycle, none for the others."""
    milestones: tuple[int, ...] = ()
    """Epochs after which the step schedule multiplies the rate by gamma."""
    gamma: float = 0.1
    """Factor of the step schedule."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    crop_padding: int | None = None
    """Pixels around a training picture before a random crop of its own size; by default an eighth of its side (4 for 32
    pixels, as in the paper), in a study none."""
    channels_last: bool = True
    """Memory format (N, H, W, C): faster for most convolutions."""
    device: Device = "auto"
    """auto takes cuda where there is one."""

    def __post_init__(self) -> None:
        require(1 <= self.epochs <= 10**6, "epochs", self.epochs, "from 1 to a million")
        require(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2: BN takes statistics over a batch")
        require_choice("optimizer", self.optimizer, ("sgd", "adamw"))
        require(isfinite(self.lr) and self.lr > 0, "lr", self.lr, "a positive number")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")
        require(
            not self.nesterov or self.momentum > 0 or self.optimizer != "sgd",
            "nesterov",
            self.nesterov,
            "off where momentum is 0",
        )
        require(0 <= self.weight_decay < inf, "weight_decay", self.weight_decay, "a number, 0 or more")
        sgd = self.optimizer == "sgd" or (self.momentum, self.nesterov) == (0.9, True)
        require(sgd, "momentum", (self.momentum, self.nesterov), "left alone with adamw, which has betas of its own")
        require_choice("schedule", self.schedule, ("one-cycle", "cosine", "step", "constant"))
        require(
            self.warmup_epochs is None or 0 <= self.warmup_epochs < self.epochs,
            "warmup_epochs",
            self.warmup_epochs,
            "0 or more, and fewer than epochs",
        )
        require(
            list(self.milestones) == sorted(set(self.milestones)) and all(0 < m < self.epochs for m in self.milestones),
            "milestones",
            self.milestones,
            "rising epoch numbers, at least 1 and below epochs",
        )
        require(
            bool(self.milestones) == (self.schedule == "step"),
            "milestones",
            self.milestones,
            "one or more epochs with the step schedule (--milestones 4 6), and none with another",
        )
        require(0 < self.gamma <= 1, "gamma", self.gamma, "above 0 and at most 1")
        require(self.schedule == "step" or self.gamma == 0.1, "gamma", self.gamma, "given with the step schedule only")
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "at least 0 and below 1")
        require(
            self.crop_padding is None or self.crop_padding >= 0, "crop_padding", self.crop_padding, "0 or more pixels"
        )
        require_choice("device", self.device, ("auto", "cpu", "cuda"))
