"""The whole training loop, top to bottom."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import isfinite
from pathlib import Path
from signal import Signals
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from resnetlab.core.errors import DivergedError, StoppedError
from resnetlab.core.randomness import derive_seed
from resnetlab.data.dataset import ImageData
from resnetlab.data.loader import Loader
from resnetlab.records.run import EpochRecord, Metrics
from resnetlab.train.callbacks import Callback, Meter, NoCallback
from resnetlab.train.checkpoint_manager import CheckpointManager, epochs_without_best
from resnetlab.train.config import TrainConfig
from resnetlab.train.distributed import share_buffers, sum_over_ranks, world
from resnetlab.train.divergence import broken_weights, find_origin, forget_broken_statistics
from resnetlab.train.evaluate import evaluate_batches
from resnetlab.train.gradients import Trace
from resnetlab.train.optim import Ema, learning_rate, make_optimizer, set_rate, total_steps
from resnetlab.train.prepare import (
    autocast,
    make_loaders,
    make_scaler,
    pick_device,
    place,
    prepare,
    spread,
    training_mode,
)
from resnetlab.train.signals import StopRequest
from resnetlab.train.state import TrainingState

WARM_WINDOW = 50
"""Steps over which ``warmup_until_error`` looks at the training error, and between two looks."""


def fit(
    net: nn.Module,
    data: ImageData,
    config: TrainConfig,
    *,
    seed: int,
    out: Path | None = None,
    callback: Callback | None = None,
    stop: StopRequest | None = None,
    trace: Trace | None = None,
) -> list[EpochRecord]:
    """Train ``net`` in place and return its epochs; with a moving average ``net`` has its weights in the end.

    With ``out``, each epoch ends with a checkpoint there (``last/``, and ``best/`` where the epoch is the best yet),
    and a run that finds one goes on from it, bit for bit, from the middle of an epoch too. The order of the samples is
    a function of (seed, epoch), how one is varied of (seed, epoch, sample), and whatever the network draws itself
    (dropout) of (seed, step, rank). ``trace`` measures the network now and then, and changes no bit of all this.

    Raises ``DivergedError`` for a loss that is not finite, with the step and where it began; the checkpoint before it
    stays, and ``net`` goes back to it; without one its norms forget statistics that are not finite. Raises
    ``StoppedError`` where ``stop`` asked for it, when the step that was reached is saved.
    """
    callback, stop = callback or NoCallback(), stop or StopRequest()
    device = pick_device(config.device)
    train, test = make_loaders(data, config, device, seed)
    if train.batch_size < config.batch_size:
        callback.on_note(f"batch_size={config.batch_size} is more than all {len(train)} training images: one batch")
    place(net, train)
    prepare(net, config)
    state = begin(net, config, train, trace)
    checkpoints = CheckpointManager(out, config, state, device)
    checkpoints.resume(callback)
    called = spread(net)
    try:
        with stop.deferred(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            while not has_ended(state.history, config, train.steps):
                train_epoch(state, called, train, config, seed, callback, stop, checkpoints)
                record = close_epoch(state, train, test, config, stop, checkpoints)
                state.history.append(record)
                state.begin_epoch()
                checkpoints.end_epoch()
                callback.on_epoch(record, config.epochs)
            state.trace.steps = min(len(state.history) * train.steps, total_steps(config, train.steps))
    except DivergedError:
        seen = state.trace.moments
        checkpoints.resume(NoCallback())
        # The weights go back; what was seen on the way stays seen.
        state.trace.moments = seen
        forget_broken_statistics(state.shipped)
        raise
    finally:
        if state.ema is not None:
            net.load_state_dict(state.ema.net.state_dict())
    return state.history


def begin(net: nn.Module, config: TrainConfig, loader: Loader, trace: Trace | None = None) -> TrainingState:
    """The state of a run before its first step."""
    return TrainingState(
        net=net,
        optimizer=make_optimizer(net, config),
        scaler=make_scaler(config.precision, loader.device),
        ema=Ema(net, config.ema) if config.ema else None,
        losses=torch.zeros(loader.steps, device=loader.device, dtype=torch.float64),
        wrong=torch.zeros(loader.steps, device=loader.device, dtype=torch.int64),
        trace=trace or Trace(),
    )


def has_ended(history: list[EpochRecord], config: TrainConfig, steps_per_epoch: int) -> bool:
    """Whether every step is done, or the last ``early_stop`` epochs brought no new best."""
    done = len(history) * steps_per_epoch >= total_steps(config, steps_per_epoch)
    return done or (config.early_stop is not None and epochs_without_best(history, config) >= config.early_stop)


def train_epoch(
    state: TrainingState,
    called: nn.Module,
    loader: Loader,
    config: TrainConfig,
    seed: int,
    callback: Callback,
    stop: StopRequest,
    checkpoints: CheckpointManager,
) -> None:
    """One pass from the step on that the state stands at. Only the trace's few looks wait for a cuda device."""
    training_mode(state.net, config.freeze)
    epoch = len(state.history) + 1
    first = (epoch - 1) * loader.steps
    total = total_steps(config, loader.steps)
    batches = loader.shuffled(seed, epoch, start=state.step)
    meter = Meter(loader.batch_size, ranks=loader.ranks, done=state.step)
    started = perf_counter() - state.seconds
    for number in range(state.step, min(loader.steps, total - first)):
        step = first + number
        seed_network(derive_seed(seed, "step", step, *([world().rank] if world().rank else [])), loader.device)
        set_rate(state.optimizer, learning_rate(config, step, loader.steps, is_warm(state, config)))
        take_step(state, called, batches, loader, number, step, config)
        state.step, state.seconds = number + 1, perf_counter() - started
        started += state.trace.look(state.shipped, step + 1)
        look_at_warmup(state, config, step, loader)
        callback.on_step(step + 1, total, meter.stats(state.losses, state.wrong, number + 1))
        if config.save_every and (step + 1) % config.save_every == 0:
            checkpoints.save_within_epoch()
        leave_if_asked(stop, step + 1, checkpoints, loader.device)


def seed_network(seed: int, device: torch.device) -> None:
    """Seed what the network draws itself.

    Not by ``torch.manual_seed``, which keeps a stack trace for each kind of device that is not in use: 0.3 ms a step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def take_step(
    state: TrainingState,
    called: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    loader: Loader,
    number: int,
    step: int,
    config: TrainConfig,
) -> None:
    """One step of the optimizer: its micro-batches forward and backward, then the update."""
    parts = loader.micro_batches
    for part in range(parts):
        images, labels = next(batches)
        # Mixed targets are smoothed already.
        smooth = config.label_smoothing if labels.dim() == 1 else 0.0
        with averaging_at_the_end(called, part == parts - 1):
            with autocast(config.precision, images.device):
                logits = called(images)
                loss = F.cross_entropy(logits, labels, label_smoothing=smooth)
            if loss.device.type == "cpu" and not isfinite(loss.item()) and world().size == 1:
                raise diverged(state, images, step + 1, loss.item(), config)
            loss = loss if parts == 1 else loss / parts
            state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        target = labels if labels.dim() == 1 else labels.argmax(dim=1)
        state.losses[number] += loss.detach()
        state.wrong[number] += (logits.detach().argmax(dim=1) != target).sum()
    if config.clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.net.parameters(), config.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None:
        state.ema.update(step)


def averaging_at_the_end(called: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Several ranks average their gradients once a step, with its last micro-batch."""
    return nullcontext() if last or not isinstance(called, DistributedDataParallel) else called.no_sync()


def is_warm(state: TrainingState, config: TrainConfig) -> bool:
    """Whether the whole rate may be used: there is no threshold to wait for, or it was reached."""
    return config.warmup_until_error is None or state.warm_since is not None


def look_at_warmup(state: TrainingState, config: TrainConfig, step: int, loader: Loader) -> None:
    """Now and then note whether the running training error has fallen below ``warmup_until_error``.

    It waits for the device, but only once in ``WARM_WINDOW`` steps or once in a shorter epoch, and not once the
    threshold is reached.
    """
    window = min(WARM_WINDOW, loader.steps)
    if is_warm(state, config) or state.step % window:
        return
    wrong = sum_over_ranks(state.wrong[state.step - window : state.step].sum()).item()
    if wrong / (window * loader.batch_size) < (config.warmup_until_error or 0):
        state.warm_since = step + 1


def leave_if_asked(stop: StopRequest, step: int, checkpoints: CheckpointManager, device: torch.device) -> None:
    """Save and raise ``StoppedError`` where a signal asked to stop, on this rank or any other."""
    signal = stop.agreed(step, device)
    if signal is None:
        return
    checkpoints.save_within_epoch()
    kept = f"saved in {checkpoints.out}" if checkpoints.out else "nothing is saved, for want of a folder"
    raise StoppedError(f"stopped by {Signals(signal).name} after step {step}; {kept}", signal)


def close_epoch(
    state: TrainingState,
    train: Loader,
    test: Loader,
    config: TrainConfig,
    stop: StopRequest,
    checkpoints: CheckpointManager,
) -> EpochRecord:
    """Evaluate what the epoch left. Raises ``DivergedError`` where a loss of it was not finite."""
    started = perf_counter()
    first = len(state.history) * train.steps
    share_buffers(state.shipped)
    losses = sum_over_ranks(state.losses[: state.step].clone()).cpu() / world().size
    wrong = sum_over_ranks(state.wrong[: state.step].sum()).item()
    check_finite(losses, first_step=first)

    def leave() -> None:
        # Ranks ask each other between steps only: their batches of an evaluation are not the same.
        if world().size == 1:
            leave_if_asked(stop, first + state.step, checkpoints, train.device)

    record = EpochRecord(
        epoch=len(state.history) + 1,
        learning_rate=learning_rate(config, first + state.step - 1, train.steps, is_warm(state, config)),
        running_loss=losses.mean().item(),
        running_error=wrong / (state.step * train.batch_size),
        train=None,
        test=evaluate_batches(state.shipped, test, config.precision, leave),
        seconds=0.0,
        images_per_second=state.step * train.batch_size / state.seconds,
    )
    if config.evaluate_train == "epoch" or has_ended([*state.history, record], config, train.steps):
        record = replace(record, train=evaluate_batches(state.shipped, train, config.precision, leave))
    check_evaluation(record, state)
    return replace(record, seconds=state.seconds + perf_counter() - started)


def diverged(state: TrainingState, images: Tensor, step: int, loss: float, config: TrainConfig) -> DivergedError:
    """The error for a loss that is not finite, with the layer where that began."""
    with autocast(config.precision, images.device):
        origin = find_origin(state.net, images, step)
    return DivergedError(
        f"the loss became {loss} at step {step}: {origin}; "
        "try a lower --lr, a warm-up, or a net with shortcuts and norms"
    )


def check_finite(losses: Tensor, first_step: int) -> None:
    """Raise ``DivergedError`` with the first step whose loss is not a finite number."""
    broken = (~losses.isfinite()).nonzero()
    if len(broken):
        step = int(broken[0])
        raise DivergedError(
            f"the loss became {losses[step].item()} at step {first_step + step + 1}; "
            "try a lower --lr, a warm-up, or a net with shortcuts and norms"
        )


def check_evaluation(record: EpochRecord, state: TrainingState) -> None:
    """Raise ``DivergedError`` where weights or the loss that they give are not finite, though every step's loss was."""
    splits: list[Metrics] = [record.test] if record.train is None else [record.train, record.test]
    broken = broken_weights(state.net) or broken_weights(state.shipped)
    if broken or not all(isfinite(split.loss) for split in splits):
        origin = f": {broken[-1]} is not finite since its last step" if broken else ""
        raise DivergedError(
            f"the loss in eval mode, or a weight, is not finite after epoch {record.epoch}{origin}; "
            "try a lower --lr or a warm-up"
        )
