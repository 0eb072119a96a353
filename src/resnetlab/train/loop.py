"""The whole training loop, top to bottom."""

from math import isfinite
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.data.arrays import ImageData
from resnetlab.data.loader import Loader
from resnetlab.errors import ConfigError, DivergedError
from resnetlab.files import folder_exists
from resnetlab.randomness import derive_seed
from resnetlab.records import EpochRecord
from resnetlab.train.checkpoint import read_checkpoint, restore_model, restore_optimizer, write_checkpoint
from resnetlab.train.config import TrainConfig
from resnetlab.train.evaluate import evaluate_batches
from resnetlab.train.logs import Silent, Watcher, write_metrics
from resnetlab.train.optim import learning_rate, make_optimizer

LAST, BEST, METRICS = "last", "best", "metrics.jsonl"


def fit(
    net: nn.Module,
    data: ImageData,
    config: TrainConfig,
    *,
    seed: int,
    out: Path | None = None,
    watcher: Watcher | None = None,
) -> list[EpochRecord]:
    """Train ``net`` in place and return its epochs.

    With ``out``, each epoch ends with a checkpoint there (``last/``, and ``best/`` where the test error is the lowest
    yet), and a run that finds one goes on from it, bit for bit. The order of the samples is a function of (seed,
    epoch), and whatever the network draws itself (dropout) of (seed, step).

    Raises ``DivergedError`` at the end of an epoch in which a loss was not finite; the checkpoint before it stays.
    """
    watcher = watcher or Silent()
    device = pick_device(config.device)
    train, test = make_loaders(data, config, device)
    if train.batch_size < config.batch_size:
        watcher.on_note(
            f"batch_size={config.batch_size} is more than all {len(train.split)} training pictures: one batch"
        )
    place(net, train)
    optimizer = make_optimizer(net, config)
    history = resume(net, optimizer, out, watcher) if out and folder_exists(out / LAST) else []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for epoch in range(len(history) + 1, config.epochs + 1):
            started = perf_counter()
            losses, rate = train_epoch(net, optimizer, train, config, seed, epoch, watcher)
            check_finite(losses, first_step=(epoch - 1) * train.steps)
            record = EpochRecord(
                epoch=epoch,
                learning_rate=rate,
                running_loss=losses.mean().item(),
                train=evaluate_batches(net, train),
                test=evaluate_batches(net, test),
                seconds=perf_counter() - started,
            )
            check_evaluation(record)
            history.append(record)
            if out:
                save(out, net, optimizer, history)
            watcher.on_epoch(record, config.epochs)
    return history


def train_epoch(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Loader,
    config: TrainConfig,
    seed: int,
    epoch: int,
    watcher: Watcher,
) -> tuple[Tensor, float]:
    """One pass; the loss of every step and the last learning rate. Nothing in it waits for the device."""
    net.train()
    losses = torch.empty(loader.steps, device=loader.split.labels.device)
    step = (epoch - 1) * loader.steps
    rate = config.lr
    for number, (images, labels) in enumerate(loader.shuffled(seed, epoch)):
        torch.manual_seed(derive_seed(seed, "step", step + number))
        rate = learning_rate(config, step + number, loader.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = F.cross_entropy(net(images), labels, label_smoothing=config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses[number] = loss.detach()
        watcher.on_step(step + number + 1, config.epochs * loader.steps)
    return losses.cpu(), rate


def resume(net: nn.Module, optimizer: torch.optim.Optimizer, out: Path, watcher: Watcher) -> list[EpochRecord]:
    """Take network and optimizer from the last checkpoint that is whole, and return the epochs behind it."""
    checkpoint = read_checkpoint(out / LAST, fall_back=True)
    if checkpoint.origin == out / f"{LAST}.previous":
        watcher.on_note(f"{out / LAST} is damaged or missing; going on from {checkpoint.origin}, an epoch before it")
    restore_model(net, checkpoint)
    restore_optimizer(net, optimizer, checkpoint)
    # A kill between checkpoint and metrics left a line out.
    write_metrics(out / METRICS, checkpoint.history)
    return checkpoint.history


def save(out: Path, net: nn.Module, optimizer: torch.optim.Optimizer, history: list[EpochRecord]) -> None:
    """Write what this epoch left. ``best/`` goes first: ``last/`` tells a resumed run that both were written."""
    if best_epoch(history) is history[-1]:
        write_checkpoint(out / BEST, net, optimizer, history)
    write_checkpoint(out / LAST, net, optimizer, history)
    write_metrics(out / METRICS, history)


def best_epoch(history: list[EpochRecord]) -> EpochRecord:
    """The epoch of the lowest test error; among equals the one of lower test loss, then the earlier one."""
    return min(history, key=lambda record: (record.test.error, record.test.loss, record.epoch))


def check_finite(losses: Tensor, first_step: int) -> None:
    """Raise ``DivergedError`` with the first step whose loss is not a finite number."""
    broken = (~losses.isfinite()).nonzero()
    if len(broken):
        step = int(broken[0])
        raise DivergedError(
            f"the loss became {losses[step].item()} at step {first_step + step + 1}; "
            "try a lower --lr, a warm-up, or a net with shortcuts and norms"
        )


def check_evaluation(record: EpochRecord) -> None:
    """Raise ``DivergedError`` where the weights give no finite loss any more, though every step still did."""
    if not isfinite(record.train.loss) or not isfinite(record.test.loss):
        raise DivergedError(
            f"the loss in eval mode is not finite after epoch {record.epoch}; try a lower --lr or a warm-up"
        )


def make_loaders(data: ImageData, config: TrainConfig, device: torch.device) -> tuple[Loader, Loader]:
    """Training and test batches on ``device``, both standardised by the training statistics."""
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    padding = data.image_size // 8 if config.crop_padding is None else config.crop_padding
    train, test = (
        Loader(split.to(device), data.normalisation, config.batch_size, memory_format, padding)
        for split in (data.train, data.test)
    )
    return train, test


def place(net: nn.Module, loader: Loader) -> None:
    """Move the network, in place, to the device and memory format of the loader's batches."""
    net.to(loader.split.labels.device)
    net.to(memory_format=loader.memory_format)  # type: ignore[call-overload]  # torch's stub lacks this form


def pick_device(name: str) -> torch.device:
    """The device of that name; ``"auto"`` is cuda where there is one. Raises ``ConfigError`` where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device='cuda' but torch finds no CUDA device here; use --device auto or cpu")
    return torch.device(name)
