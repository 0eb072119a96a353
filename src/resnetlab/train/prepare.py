"""A network and its batches made ready for training: device, memory, frozen parts, ranks."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resnetlab.core.environment import describe_environment
from resnetlab.core.errors import ConfigError
from resnetlab.core.randomness import generator
from resnetlab.data.augmentation import Augmentation
from resnetlab.data.dataset import ImageData, Images
from resnetlab.data.loader import Loader
from resnetlab.models.classifier import Classifier
from resnetlab.models.recompute import recompute_blocks
from resnetlab.records.run import ReportedSplit
from resnetlab.train.config import Precision, TrainConfig
from resnetlab.train.distributed import World, check_share, world
from resnetlab.train.sync_bn import synchronise_norms

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which convolutions and matrices run in ``precision``; with fp32 there is none."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=DTYPES[precision])


def make_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """The scaler of the loss: fp16 holds no gradient below 6e-8. It does nothing for the other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def pick_device(name: str) -> torch.device:
    """The device of that name; ``"auto"`` is cuda where there is one. Raises ``ConfigError`` where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device='cuda' but torch finds no CUDA device here; use --device auto or cpu")
    return torch.device(name)


def environment_of(device: torch.device) -> dict[str, Any]:
    """The versions and the hardware on which the bits of a run depend."""
    return describe_environment(str(device), torch.get_num_threads()) | {"ranks": world().size}


def evaluation_loaders(data: ImageData, config: TrainConfig, device: torch.device) -> dict[ReportedSplit, Loader]:
    """Batches of validation and test, of those that the set has, on ``device``; this rank's share of each.

    Images are standardised by the training statistics.
    """
    splits: dict[ReportedSplit, Images | None] = {"validation": data.validation, "test": data.test}
    return {
        name: Loader(
            split.to(device),
            data.normalisation,
            min(config.batch_size, len(data.train)),
            memory_format=_memory_format(config),
            rank=world().rank,
            ranks=world().size,
        )
        for name, split in splits.items()
        if split is not None
    }


def make_loader(
    data: ImageData, config: TrainConfig, device: torch.device, seed: int = 0, *, alone: bool = False
) -> Loader:
    """Training batches on ``device``, augmented as the settings say; with ``alone`` whole ones for each rank.

    Raises ``ConfigError`` where the ranks and micro-batches cannot share a batch evenly.
    """
    here = World() if alone else world()
    batch = min(config.batch_size, len(data.train))
    # The whole of a set smaller than a batch is not cut.
    parts = config.accumulate if batch == config.batch_size else 1
    if here.size * parts > 1:
        check_share(batch, here.size, parts, even=bool(config.augment.mixup or config.augment.cutmix))
    only = None
    if config.overfit_batches is not None:
        order = torch.from_numpy(generator(seed, "order", 1).permutation(len(data.train)))
        only = order[: config.overfit_batches * batch].sort().values
    return Loader(
        data.train.to(device),
        data.normalisation,
        batch,
        memory_format=_memory_format(config),
        augmentation=Augmentation(config.augment, data.image_size, len(data.classes), config.label_smoothing),
        micro_batches=parts,
        rank=here.rank,
        ranks=here.size,
        only=only,
        balanced=config.sampler == "balanced",
    )


UNEQUAL = 5
"""Times that the largest class has as many images as the smallest, from which on that is told."""


def balance_note(data: ImageData, config: TrainConfig) -> list[str]:
    """In words how unequal the classes are, and what can be done; nothing where they are not, or it is done."""
    counts = torch.bincount(data.train.labels.cpu(), minlength=len(data.classes))
    held = [(count, name) for count, name in zip(counts.tolist(), data.classes, strict=True) if count]
    (fewest, rare), (most, common) = min(held), max(held)
    if most < UNEQUAL * fewest or (config.class_weights, config.sampler) != ("none", "shuffled"):
        return []
    return [
        f"classes are unequal: {most} training images of {common}, {fewest} of {rare}; to count rare ones as much as "
        "common ones, try --class-weights balanced or --sampler balanced"
    ]


def batch_note(config: TrainConfig) -> list[str]:
    """In words how ranks and micro-batches share a batch; nothing where it is taken whole."""
    ranks, parts = world().size, config.accumulate
    if ranks * parts == 1:
        return []

    def counted(number: int, what: str) -> str:
        return f"{number} {what}" if number == 1 else f"{number} {what}{'es' if what.endswith('h') else 's'}"

    return [
        f"batch: {config.batch_size} images a step = {counted(ranks, 'rank')} × {counted(parts, 'micro-batch')} × "
        f"{config.batch_size // (ranks * parts)}; learning rate {config.lr:g} as given: the batch does not depend on "
        "the number of ranks, so neither does the rate"
    ]


def _memory_format(config: TrainConfig) -> torch.memory_format:
    return torch.channels_last if config.channels_last else torch.contiguous_format


def move_to(net: nn.Module, loader: Loader) -> None:
    """Move the network, in place, to the device and memory format of the loader's batches."""
    net.to(loader.device)
    net.to(memory_format=loader.memory_format)  # type: ignore[call-overload]  # torch's stub lacks this form


def prepare(net: nn.Module, config: TrainConfig) -> None:
    """Freeze, recompute and synchronise norms as the settings say, in place; names of parameters stay."""
    if config.freeze is not None:
        for part in frozen_parts(net, config.freeze):
            part.requires_grad_(False)
    save_memory(net, config)
    if config.sync_bn:
        synchronise_norms(net)


def save_memory(net: nn.Module, config: TrainConfig) -> None:
    """Let the stages of ``net`` recompute their activations in segments, in place, as ``checkpoint_blocks`` says."""
    if config.checkpoint_blocks is not None:
        recompute_blocks(net, config.checkpoint_blocks)


def frozen_parts(net: nn.Module, up_to: str) -> list[nn.Module]:
    """The parts of ``net`` from the stem up to the named one, such as ``stem`` or ``stages.2``.

    Raises ``ConfigError`` for a name that is no part.
    """
    if not isinstance(net, Classifier):
        raise ConfigError(f"{type(net).__name__} has no stem and stages to freeze; make a network with create_model")
    parts = {"stem": net.stem} | {f"stages.{number}": stage for number, stage in enumerate(net.stages)}
    if up_to not in parts:
        raise ConfigError(f"freeze={up_to!r} is not possible: the parts of this network are {', '.join(parts)}")
    names = list(parts)
    return [parts[name] for name in names[: names.index(up_to) + 1]]


def training_mode(net: nn.Module, config: TrainConfig, epoch: int = 1) -> bool:
    """Training mode, but for the parts that are frozen in that epoch: their norms keep the statistics that their
    weights were trained with. Returns whether the network is trained further down than in the epoch before, since
    ``freeze_epochs`` are over."""
    net.train()
    if config.freeze is None:
        return False
    parts = frozen_parts(net, config.freeze)
    if config.freeze_epochs is None or epoch <= config.freeze_epochs:
        for part in parts:
            part.eval()
        return False
    below = [parameter for part in parts for parameter in part.parameters() if not parameter.requires_grad]
    for parameter in below:
        parameter.requires_grad_(True)
    return bool(below)


def class_weights(loader: Loader, config: TrainConfig) -> Tensor | None:
    """The weight of each class in the loss, ``(K,)``: n / (K n_k) for the n training images, n_k of class k, of which K
    classes have some; None where all weigh the same. A class without images weighs 0.

    The loss of a batch is Σ w_y l / Σ w_y, as that of ``torch.nn.CrossEntropyLoss(weight=w)``; that of mixed targets
    is divided by the number of images, as there. Each rank and micro-batch divides by its own weights.
    """
    if config.class_weights == "none" or loader.augmentation is None:
        return None
    counts = torch.bincount(loader.split.labels, minlength=loader.augmentation.num_classes)
    return (len(loader.split) / (int((counts > 0).sum()) * counts)).nan_to_num(posinf=0.0)


def wrap_ddp(net: nn.Module, config: TrainConfig) -> nn.Module:
    """``net`` in DistributedDataParallel where there are several ranks, so that their gradients are averaged.

    On cuda it is compiled whole, in that wrapper: torch then cuts the graph where a bucket of gradients is full, so
    that sending one overlaps the computation of the next.
    """
    wrapped = net
    if world().size > 1:
        trained = any(parameter.requires_grad for parameter in net.parameters())
        if not trained:
            raise ConfigError("nothing of the network is trained: freeze leaves no parameter")
        # Statistics of norms are shared once an epoch (share_buffers); training reads none of them.
        others = any(
            not isinstance(module, nn.modules.batchnorm._BatchNorm) and module._buffers for module in net.modules()
        )
        wrapped = DistributedDataParallel(net, gradient_as_bucket_view=True, broadcast_buffers=others)
    if config.compile and next(net.parameters()).is_cuda:
        wrapped.compile(dynamic=False)
    return wrapped


def averaging_at_the_end(ddp_net: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Several ranks average their gradients once a step, with its last micro-batch."""
    return nullcontext() if last or not isinstance(ddp_net, DistributedDataParallel) else ddp_net.no_sync()


def seed_network(seed: int, device: torch.device) -> None:
    """Seed what the network draws itself.

    Not by ``torch.manual_seed``, which keeps a stack trace for each kind of device that is not in use: 0.3 ms a step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
