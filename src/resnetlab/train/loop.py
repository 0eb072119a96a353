"""The whole training loop, top to bottom."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from math import isfinite
from pathlib import Path
from signal import Signals
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError, DivergedError, StoppedError
from resnetlab.core.randomness import derive_seed
from resnetlab.core.serialize import as_plain
from resnetlab.data.dataset import ImageData
from resnetlab.data.loader import Loader
from resnetlab.data.torch_datasets import OwnData, as_image_data
from resnetlab.records.run import EpochRecord, Metrics, ReportedSplit
from resnetlab.train.callbacks import Callback, Meter, NoCallback
from resnetlab.train.checkpoint import RunSettings
from resnetlab.train.checkpoint_manager import BEST, CheckpointManager
from resnetlab.train.compile import compile_if_faster, eagerly, uncompile_parts
from resnetlab.train.config import TrainConfig, changed_config
from resnetlab.train.distributed import share_buffers, sum_over_ranks, world
from resnetlab.train.divergence import ADVICE, broken_weights, check_finite, find_origin, forget_broken_statistics
from resnetlab.train.evaluate import evaluate_batches
from resnetlab.train.gradients import Trace
from resnetlab.train.optim import Ema, clear_gradients, learning_rate, make_optimizer, set_rate, total_steps
from resnetlab.train.prepare import (
    autocast,
    averaging_at_the_end,
    class_weights,
    evaluation_loaders,
    make_loader,
    make_scaler,
    move_to,
    pick_device,
    prepare,
    seed_network,
    training_mode,
    wrap_ddp,
)
from resnetlab.train.signals import StopRequest
from resnetlab.train.state import TrainingState, restore_model

WARM_WINDOW = 50
"""Steps over which ``warmup_until_error`` takes the training error, and between two checks of it."""


def fit(
    net: nn.Module,
    data: OwnData,
    config: TrainConfig | None = None,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    callback: Callback | None = None,
    stop: StopRequest | None = None,
    trace: Trace | None = None,
    choose: bool = True,
    settings: RunSettings | None = None,
    **training: Any,
) -> list[EpochRecord]:
    """Train ``net`` in place and return its epochs; with EMA on, ``net`` ends with the averaged weights.

    ``net`` is any module that maps images ``(N, C, H, W)`` to logits. ``data`` is an ``ImageData`` or your own: a
    Dataset or DataLoader of (image, label), a pair of them (train, test), or a mapping of splits; ``from_datasets``
    says what is made of them, and when a run on them resumes bit for bit. ``training`` are settings of ``TrainConfig``
    in place of those of ``config``, such as ``epochs=10``.

    With ``choose``, validation images, where ``data`` has them, are evaluated after each epoch and choose the best;
    test is evaluated at the end, of the last epoch and of the best. Otherwise the split to report is evaluated after
    each epoch, and the last epoch is the best.

    With ``out``, each epoch ends with a checkpoint there (``last/``, and ``best/`` where the epoch is the best yet);
    of epochs that are shorter than ``save_every_seconds`` only some are written, the last one always. A run that finds
    one resumes from it, bit for bit, from the middle of an epoch too. The order of the samples is a function of (seed,
    epoch), how one is augmented of (seed, epoch, sample), and whatever the network draws itself (dropout) of (seed,
    step, rank). ``trace`` measures the network now and then, and changes no bit of all this.
    ``settings`` stand in every checkpoint, ``config`` and ``seed`` by default: a run that resumes with others says so.

    Raises ``ConfigError`` for an unknown setting and an early stop without validation images. Raises ``DivergedError``
    for a loss that is not finite, with the step and where it began; the checkpoint before it stays, and ``net`` goes
    back to it; without one its norms forget statistics that are not finite. Raises ``StoppedError`` where ``stop``
    asked for it, when the step that was reached is saved.
    """
    callback, config = callback or NoCallback(), changed_config(config or TrainConfig(), training)
    if not isinstance(data, ImageData):
        data = as_image_data(data, outputs=getattr(net, "num_classes", None))
        for note in data.notes:
            callback.on_note(note)
    chooses = choose and data.validation is not None
    check_early_stop(config, chooses)
    device = pick_device(config.device)
    loader = make_loader(data, config, device, seed)
    if loader.batch_size < config.batch_size:
        callback.on_note(f"batch_size={config.batch_size} is more than all {len(loader)} training images: one batch")
    trainer = Trainer(
        net,
        loader,
        config,
        seed,
        evaluation_loaders(data, config, device),
        chooses=chooses,
        out=None if out is None else Path(out),
        callback=callback,
        stop=stop,
        trace=trace,
        settings=settings,
    )
    return trainer.fit()


def check_early_stop(config: TrainConfig, chooses: bool) -> None:
    """Raise ``ConfigError`` for an early stop where no validation images say when."""
    if config.early_stop is not None and not chooses:
        raise ConfigError(
            f"early_stop={config.early_stop} needs validation images, which choose when to end; "
            "train with --validation, or without --early-stop"
        )


class Trainer:
    """One training run: its state, batches, settings and checkpoints, and who is told.

    ``loader`` gives the training batches of this rank, ``evaluated`` those of the splits that are evaluated, by name.
    With ``chooses`` the validation split chooses the best epoch.
    """

    def __init__(
        self,
        net: nn.Module,
        loader: Loader,
        config: TrainConfig,
        seed: int,
        evaluated: Mapping[ReportedSplit, Loader] | None = None,
        *,
        chooses: bool = False,
        out: Path | None = None,
        callback: Callback | None = None,
        stop: StopRequest | None = None,
        trace: Trace | None = None,
        settings: RunSettings | None = None,
    ) -> None:
        self.loader, self.evaluated = loader, dict(evaluated or {})
        self.config, self.seed, self.chooses = config, seed, chooses
        self.callback, self.stop = callback or NoCallback(), stop or StopRequest()
        self.total = total_steps(config, loader.steps)
        self.class_weights = class_weights(loader, config)
        move_to(net, loader)
        prepare(net, config)
        self.state = TrainingState(
            net=net,
            optimizer=make_optimizer(net, config),
            scaler=make_scaler(config.precision, loader.device),
            ema=Ema(net, config.ema) if config.ema else None,
            losses=torch.zeros(loader.steps, device=loader.device, dtype=torch.float64),
            wrong=torch.zeros(loader.steps, device=loader.device, dtype=torch.int64),
            trace=trace or Trace(),
        )
        self.checks_at_once = loader.device.type == "cpu" and world().size == 1
        """Whether a loss that is not finite ends the run at its step, before the update."""
        self.ddp_net = net
        """The network as it is called in training; with several ranks it averages their gradients."""
        self.settings = settings or RunSettings(values={"training": as_plain(config), "seed": seed})
        self.checkpoints = CheckpointManager(
            out, config, self.state, loader.device, chooses=chooses, settings=self.settings
        )

    def fit(self) -> list[EpochRecord]:
        """Train from where the checkpoints stand to the end."""
        state, device = self.state, self.loader.device
        self.checkpoints.resume(self.callback)
        if "test" not in self.evaluated:
            # Version 0.1.0 called the only split that it evaluated test.
            state.history = [replace(e, validation=e.validation or e.test, test=None) for e in state.history]
        try:
            if self.config.compile and device.type == "cpu" and not self.has_ended(state.history):
                self.compile()
            self.ddp_net = wrap_ddp(state.net, self.config)
            forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
            with self.stop.deferred(), self.checkpoints, forked:
                while not self.has_ended(state.history):
                    self.train_epoch()
                    record = self.evaluate_epoch()
                    state.end_epoch(record)
                    self.checkpoints.end_epoch()
                    self.callback.on_epoch(record, self.config.epochs)
                state.trace.steps = min(len(state.history) * self.loader.steps, self.total)
                self.test_best()
        except DivergedError:
            self.go_back()
            raise
        finally:
            if self.config.compile:
                uncompile_parts(state.net)
            if state.ema is not None:
                state.net.load_state_dict(state.ema.net.state_dict())
        return state.history

    def compile(self) -> None:
        """Compile the network if a batch of this run then takes no longer."""
        net = self.state.net
        training_mode(net, self.config, len(self.state.history) + 1)
        images, labels = next(self.loader.shuffled(self.seed, 1))

        def one_pass() -> None:
            self.forward(images, labels)[1].backward()  # type: ignore[no-untyped-call]
            net.zero_grad(set_to_none=True)

        compile_if_faster(net, one_pass, self.settings, self.callback)

    def has_ended(self, history: list[EpochRecord]) -> bool:
        """Whether every step is done, or the last ``early_stop`` epochs brought no new best."""
        patience = self.config.early_stop
        done = len(history) * self.loader.steps >= self.total
        return done or (patience is not None and self.checkpoints.epochs_without_best(history) >= patience)

    def train_epoch(self) -> None:
        """Train from the step that the state stands at to the end of the epoch.

        Only the few measurements of the trace and of the warm-up wait for a cuda device. Raises ``DivergedError`` for a
        loss that is not finite: on one CPU at its step, else when the statistics of the steps have come from the
        device and the ranks have told each other.
        """
        state, loader, config = self.state, self.loader, self.config
        if training_mode(state.net, config, len(state.history) + 1):
            self.ddp_net = wrap_ddp(state.net, config)
        first = len(state.history) * loader.steps
        batches = loader.shuffled(self.seed, len(state.history) + 1, start=state.step)
        meter = Meter(loader.batch_size, ranks=loader.ranks, done=state.step)
        started, rank = perf_counter() - state.seconds, [world().rank] if world().rank else []
        diverged = False
        for number in range(state.step, min(loader.steps, self.total - first)):
            step = first + number
            seed_network(derive_seed(self.seed, "step", step, *rank), loader.device)
            set_rate(state.optimizer, learning_rate(config, step, loader.steps, self.is_warm))
            state.trace.remember_if_due(state.net, step + 1)
            self.take_step(batches, number, step)
            state.step, state.seconds = number + 1, perf_counter() - started
            started += state.trace.measure_if_due(state.eval_net, step + 1, state.net)
            self.update_warmup(step)
            stats = meter.stats(state.losses, state.wrong, number + 1)
            self.callback.on_step(step + 1, self.total, stats)
            diverged = diverged or (stats is not None and not isfinite(stats.loss))
            if config.save_every and (step + 1) % config.save_every == 0:
                self.checkpoints.save_within_epoch()
            self.stop_if_requested(step + 1, diverged)

    def take_step(self, batches: Iterator[tuple[Tensor, Tensor]], number: int, step: int) -> None:
        """One step of the optimizer, the ``number``-th of its epoch and the ``step``-th of the run: its micro-batches
        forward and backward, then the update."""
        state, config, parts = self.state, self.config, self.loader.micro_batches
        for part in range(parts):
            images, labels = next(batches)
            with averaging_at_the_end(self.ddp_net, part == parts - 1):
                logits, loss = self.forward(images, labels)
                if self.checks_at_once and not isfinite(loss.item()):
                    raise self.diverged(images, step + 1, loss.item())
                loss = loss if parts == 1 else loss / parts
                state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            state.count(number, loss, logits, labels)
        if config.clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.net.parameters(), config.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        clear_gradients(state.optimizer)
        if state.ema is not None:
            state.ema.update(step)

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and loss of a micro-batch, in the precision of the run."""
        # Mixed targets are smoothed already.
        smooth = self.config.label_smoothing if labels.dim() == 1 else 0.0
        with autocast(self.config.precision, images.device):
            logits = self.ddp_net(images)
            return logits, F.cross_entropy(logits, labels, weight=self.class_weights, label_smoothing=smooth)

    @property
    def is_warm(self) -> bool:
        """Whether the whole rate may be used: no threshold to wait for, or it was reached."""
        return self.config.warmup_until_error is None or self.state.warm_since is not None

    def update_warmup(self, step: int) -> None:
        """Note now and then whether the running training error has fallen below ``warmup_until_error``.

        It waits for the device, but only once in ``WARM_WINDOW`` steps or once in a shorter epoch, and not once the
        threshold is reached.
        """
        state, window = self.state, min(WARM_WINDOW, self.loader.steps)
        if self.is_warm or state.step % window:
            return
        wrong = sum_over_ranks(state.wrong[state.step - window : state.step].sum()).item()
        if wrong / (window * self.loader.batch_size) < (self.config.warmup_until_error or 0):
            state.warm_since = step + 1

    def stop_if_requested(self, step: int, diverged: bool = False) -> None:
        """Save and raise ``StoppedError`` where a signal asked to stop, on this rank or any other. Where one of them
        has seen a loss that is not finite raise ``DivergedError``."""
        signal, diverged = self.stop.agreed(step, self.loader.device, diverged)
        if diverged:
            self.finite_losses()
        if signal is None:
            return
        self.checkpoints.save_within_epoch()
        self.checkpoints.wait()
        kept = f"saved in {self.checkpoints.out}" if self.checkpoints.out else "nothing is saved, for want of a folder"
        raise StoppedError(f"stopped by {Signals(signal).name} after step {step}; {kept}", signal)

    def evaluate_epoch(self) -> EpochRecord:
        """Evaluate the network that the epoch gave. Raises ``DivergedError`` where a loss of it was not finite."""
        started = perf_counter()
        state, loader, config = self.state, self.loader, self.config
        first = len(state.history) * loader.steps
        share_buffers(state.eval_net)
        losses = self.finite_losses()
        wrong = sum_over_ranks(state.wrong[: state.step].sum()).item()
        record = EpochRecord(
            epoch=len(state.history) + 1,
            learning_rate=learning_rate(config, first + state.step - 1, loader.steps, self.is_warm),
            running_loss=losses.mean().item(),
            running_error=wrong / (state.step * loader.batch_size),
            train=None,
            seconds=0.0,
            images_per_second=state.step * loader.batch_size / state.seconds,
        )
        if "validation" in self.evaluated and (self.chooses or "test" not in self.evaluated):
            record = replace(record, validation=self.evaluate(self.evaluated["validation"]))
        last = self.has_ended([*state.history, record])
        if "test" in self.evaluated and (last or not self.chooses):
            record = replace(record, test=self.evaluate(self.evaluated["test"]))
        if config.evaluate_train == "epoch" or last:
            record = replace(record, train=self.evaluate(loader))
        self.check_evaluation(record)
        return replace(record, seconds=state.seconds + perf_counter() - started)

    def finite_losses(self) -> Tensor:
        """The loss of each step of the epoch, over all ranks. Raises ``DivergedError`` where one is not finite."""
        state = self.state
        losses = sum_over_ranks(state.losses[: state.step].clone()).cpu() / world().size
        check_finite(losses, first_step=len(state.history) * self.loader.steps)
        return losses

    def evaluate(self, batches: Loader) -> Metrics:
        """Loss and error of the network that is kept, on ``batches``."""
        step = len(self.state.history) * self.loader.steps + self.state.step

        def stop() -> None:
            # Ranks ask each other between steps only: their batches of an evaluation are not the same.
            if world().size == 1:
                self.stop_if_requested(step)

        with eagerly() if self.config.compile else nullcontext():
            return evaluate_batches(self.state.eval_net, batches, self.config.precision, stop)

    def test_best(self) -> None:
        """Evaluate the best epoch on test, where validation has chosen another than the last."""
        best = self.checkpoints.ranking(self.state.history)[0]
        if best.test is not None or "test" not in self.evaluated:
            return
        checkpoint = self.checkpoints.read(BEST)
        if checkpoint is None or checkpoint.history[-1].epoch != best.epoch:
            return
        net = deepcopy(self.state.eval_net)
        restore_model(net, checkpoint.model, checkpoint)
        test = evaluate_batches(net, self.evaluated["test"], self.config.precision)
        self.state.history[best.epoch - 1] = replace(best, test=test)
        self.checkpoints.write_metrics()

    def go_back(self) -> None:
        """Restore the last checkpoint, for a run that diverged. What the trace has measured meanwhile stays."""
        moments = self.state.trace.moments
        self.checkpoints.resume(NoCallback())
        self.state.trace.moments = moments
        forget_broken_statistics(self.state.eval_net)

    def diverged(self, images: Tensor, step: int, loss: float) -> DivergedError:
        """The error for a loss that is not finite, with the layer where that began."""
        with eagerly(), autocast(self.config.precision, images.device):
            origin = find_origin(self.state.net, images, step)
        return DivergedError(f"the loss became {loss} at step {step}: {origin}; {ADVICE}")

    def check_evaluation(self, record: EpochRecord) -> None:
        """Raise ``DivergedError`` where weights or the loss they give are not finite, though every step's loss was."""
        splits = [metrics for metrics in (record.train, record.validation, record.test) if metrics is not None]
        # Without an average both are one network.
        nets = dict.fromkeys((self.state.net, self.state.eval_net))
        broken = next(filter(None, map(broken_weights, nets)), [])
        if broken or not all(isfinite(metrics.loss) for metrics in splits):
            origin = f": {broken[-1]} is not finite since its last step" if broken else ""
            raise DivergedError(
                f"the loss in eval mode, or a weight, is not finite after epoch {record.epoch}{origin}; "
                "try a lower --lr or a warm-up"
            )
