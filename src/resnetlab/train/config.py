"""The settings of a training run. This file loads no torch, so that the command line can read it quickly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf, isfinite
from typing import Any, Literal, get_args

from resnetlab.core.errors import require, require_choice, unknown_name
from resnetlab.data.config import AugmentConfig

Optimizer = Literal["sgd", "adamw", "lars", "normalised_sgd", "signsgd"]
Schedule = Literal["one-cycle", "cosine", "step", "constant"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]
Weighting = Literal["none", "balanced"]
Sampler = Literal["shuffled", "balanced"]
Best = Literal["validation_error", "validation_loss"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained.

    Raises ``ConfigError`` for values that make no run.
    """

    epochs: int = 8
    """Passes over the training images."""
    max_steps: int | None = None
    """Steps after which training ends, even within an epoch; schedules end with it."""
    batch_size: int = 64
    """Global batch size: images of one step, over all ranks and micro-batches. The incomplete batch at the end of an
    epoch is left out."""
    accumulate: int = 1
    """Gradient accumulation: micro-batches per batch, to save memory; BN takes its statistics from each."""
    optimizer: Optimizer = "sgd"
    """sgd, or adamw (betas 0.9 and 0.999). For gradients whose size must not matter: lars (each weight tensor steps by
    a share of its norm), normalised_sgd (each tensor by its gradient over the gradient's norm), signsgd (Signum)."""
    lr: float = 0.05
    """The highest learning rate of the schedule; --lr auto finds one by a range test first."""
    head_lr: float | None = None
    """The highest learning rate of the head, for fine-tuning; by default that of all layers."""
    momentum: float = 0.9
    """Momentum, of all optimizers but adamw."""
    nesterov: bool = True
    """Nesterov's form of the momentum, of sgd and normalised_sgd; the others have none."""
    weight_decay: float = 5e-4
    """Weight decay (sgd and lars: L2 penalty; others: decoupled), on weights alone unless decay_all."""
    decay_all: bool = False
    """Apply weight decay to norms and biases too, as the papers of 2015 and 2016 do."""
    clip_norm: float | None = None
    """Gradient clipping: the largest norm, over all parameters together; a larger gradient is scaled down to it."""
    schedule: Schedule = "one-cycle"
    """one-cycle: up and down by cosines. cosine: down to 0. step: divided at milestones. constant."""
    warmup_epochs: float | None = None
    """Warm-up: epochs of rising rate at the start; 30 % of all epochs for one-cycle, none for the others."""
    warmup_steps: int | None = None
    """Warm-up in steps, instead of epochs."""
    warmup_until_error: float | None = None
    """Train with a tenth of the rate until the running training error falls below this share, as the paper does for 110
    layers (0.8)."""
    milestones: tuple[int, ...] = ()
    """Epochs after which the step schedule multiplies the rate by gamma."""
    milestone_steps: tuple[int, ...] = ()
    """Milestones in steps instead of epochs, such as 32000 48000."""
    gamma: float = 0.1
    """Factor of the step schedule."""
    label_smoothing: float = 0.0
    """Share of the target that is divided among all classes."""
    ema: float = 0.0
    """Decay of an exponential moving average of weights and statistics, such as 0.999; the average is what is evaluated
    and kept. 0 is off."""
    freeze: str | None = None
    """Fine-tuning: freeze the network up to and including this part, such as stem or stages.2; frozen norms keep their
    statistics."""
    freeze_epochs: int | None = None
    """Epochs after which what is frozen is trained too; by default it stays frozen."""
    class_weights: Weighting = "none"
    """balanced: the loss of an image of class k weighs n / (K n_k), so that rare classes count as much as common
    ones."""
    sampler: Sampler = "shuffled"
    """shuffled: every image once an epoch. balanced: as many images of each class; those of rare ones are repeated."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How training images are augmented."""
    overfit_batches: int | None = None
    """Train on this many batches only, and measure the training error on them: a network that cannot fit them has a
    fault."""
    evaluate_train: Literal["epoch", "end"] = "epoch"
    """Evaluate the training images after each epoch, or at the end only, which saves about a quarter of the time."""
    early_stop: int | None = None
    """Epochs without a new best on validation, after which training ends."""
    best_by: Best = "validation_error"
    """What makes an epoch the best: the lowest validation error or loss; ties go to the other, then to the earlier."""
    keep_top: int = 0
    """Number of best epochs whose checkpoints are kept in top/; without validation, of the last epochs."""
    save_every: int | None = None
    """Steps between checkpoints within an epoch, in addition to the one at its end."""
    save_every_seconds: float = 10.0
    """Seconds between the checkpoints of short epochs; what is held back is written later, and always when the run ends
    or stops. 0 writes every epoch, and so does keep_top."""
    precision: Precision = "fp32"
    """fp32, or mixed precision: bf16 or fp16 for convolutions and matrices, fp32 for weights (fp16 scales the loss)."""
    channels_last: bool = True
    """Memory format (N, H, W, C): faster for most convolutions."""
    compile: bool = False
    """Compile the network with torch.compile. On a CPU each block by itself, if a trial at the start finds that faster;
    needs a C++ compiler there."""
    checkpoint_blocks: int | Literal["auto"] | None = None
    """Activation checkpointing: blocks per segment that is recomputed, for one more forward pass; auto chooses."""
    sync_bn: bool = False
    """With several ranks, let BN take its statistics over the batches of all ranks."""
    device: Device = "auto"
    """auto takes cuda where there is one."""

    def __post_init__(self) -> None:
        self._check_length()
        self._check_optimizer()
        self._check_schedule()
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "at least 0 and below 1")
        require(0 <= self.ema < 1, "ema", self.ema, "at least 0 and below 1")
        for name in ("max_steps", "overfit_batches", "early_stop", "save_every"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "at least 1, or left out")
        require(self.keep_top >= 0, "keep_top", self.keep_top, "0 or more")
        require(0 <= self.save_every_seconds < inf, "save_every_seconds", self.save_every_seconds, "0 or more seconds")
        require_choice("evaluate_train", self.evaluate_train, ("epoch", "end"))
        require_choice("best_by", self.best_by, ("validation_error", "validation_loss"))
        require_choice("precision", self.precision, ("fp32", "bf16", "fp16"))
        require(
            self.checkpoint_blocks in (None, "auto")
            or (isinstance(self.checkpoint_blocks, int) and self.checkpoint_blocks >= 1),
            "checkpoint_blocks",
            self.checkpoint_blocks,
            "a number of blocks from 1 on, or auto",
        )
        require_choice("class_weights", self.class_weights, ("none", "balanced"))
        require_choice("sampler", self.sampler, ("shuffled", "balanced"))
        require(
            self.freeze_epochs is None or (self.freeze_epochs >= 1 and self.freeze is not None),
            "freeze_epochs",
            self.freeze_epochs,
            "at least 1, with freeze",
        )
        require_choice("device", self.device, ("auto", "cpu", "cuda"))

    def _check_length(self) -> None:
        require(1 <= self.epochs <= 10**6, "epochs", self.epochs, "from 1 to a million")
        require(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2: BN takes statistics over a batch")
        require(
            1 <= self.accumulate <= self.batch_size // 2 and self.batch_size % self.accumulate == 0,
            "accumulate",
            self.accumulate,
            f"a number that divides batch_size={self.batch_size} into micro-batches of 2 or more",
        )

    def _check_optimizer(self) -> None:
        require_choice("optimizer", self.optimizer, get_args(Optimizer))
        require(isfinite(self.lr) and self.lr > 0, "lr", self.lr, "a positive number")
        for name in ("head_lr", "clip_norm"):
            value = getattr(self, name)
            require(value is None or (isfinite(value) and value > 0), name, value, "a positive number, or left out")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")
        require(
            not self.nesterov or self.momentum > 0 or self.optimizer not in ("sgd", "normalised_sgd"),
            "nesterov",
            self.nesterov,
            "off where momentum is 0",
        )
        require(0 <= self.weight_decay < inf, "weight_decay", self.weight_decay, "a number, 0 or more")
        usual = self.optimizer != "adamw" or (self.momentum, self.nesterov) == (0.9, True)
        require(usual, "momentum", (self.momentum, self.nesterov), "left alone with adamw, which has betas of its own")

    def _check_schedule(self) -> None:
        require_choice("schedule", self.schedule, ("one-cycle", "cosine", "step", "constant"))
        require(
            self.warmup_epochs is None or 0 <= self.warmup_epochs < self.epochs,
            "warmup_epochs",
            self.warmup_epochs,
            "0 or more, and fewer than epochs",
        )
        require(self.warmup_steps is None or self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        warmups = [self.warmup_epochs, self.warmup_steps, self.warmup_until_error]
        require(sum(w is not None for w in warmups) <= 1, "warm-up", warmups, "given in one way only")
        until = self.warmup_until_error
        require(until is None or 0 < until < 1, "warmup_until_error", until, "a share above 0 and below 1, such as 0.8")
        require(
            until is None or self.schedule != "one-cycle",
            "warmup_until_error",
            until,
            "given with another schedule than one-cycle, which has a warm-up of its own",
        )
        require(
            _rising(self.milestones) and all(m < self.epochs for m in self.milestones),
            "milestones",
            self.milestones,
            "rising epoch numbers, at least 1 and below epochs",
        )
        require(_rising(self.milestone_steps), "milestone_steps", self.milestone_steps, "rising step numbers from 1 on")
        marks = bool(self.milestones) + bool(self.milestone_steps)
        require(
            marks == (self.schedule == "step"),
            "milestones",
            (*self.milestones, *self.milestone_steps),
            "one or more, in epochs (--milestones 4 6) or in steps (--milestone-steps 32000), with the step schedule, "
            "and none with another",
        )
        require(0 < self.gamma <= 1, "gamma", self.gamma, "above 0 and at most 1")
        require(self.schedule == "step" or self.gamma == 0.1, "gamma", self.gamma, "given with the step schedule only")


HABITS = {
    "learning_rate": "lr",
    "max_epochs": "epochs",
    "num_epochs": "epochs",
    "bs": "batch_size",
    "wd": "weight_decay",
}
"""Names that other projects have for settings of training."""


def changed_config(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """``config`` with ``settings`` by name in place of its own. Raises ``ConfigError`` for an unknown name, with the
    nearest ones, and for values that make no run."""
    named = {HABITS.get(name, name): value for name, value in settings.items()}
    known = [one.name for one in fields(config)]
    for name in named:
        if name not in known:
            raise unknown_name("setting of training", name, known)
    return replace(config, **named)


def _rising(numbers: Sequence[int]) -> bool:
    return list(numbers) == sorted(set(numbers)) and all(number >= 1 for number in numbers)
