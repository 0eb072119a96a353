"""The loops that are compared with ours, as they are often written: with torchvision, timm and Lightning where these
are installed, and by hand where torchvision is not."""

import logging
import warnings
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from resnetlab.data.dataset import ImageData, Split

Batches = Iterable[tuple[Tensor, Tensor]]


def bare(
    net: nn.Module, batches: Batches, lr: float, *, device: str = "cpu", precision: torch.dtype | None = None
) -> Callable[[], None]:
    """The least that a step needs: forward, loss, backward, SGD. On a CPU its loss is read, as everyone does to show
    it."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def run() -> None:
        net.train()
        for images, labels in batches:
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            if precision is None:
                loss = F.cross_entropy(net(images), labels)
            else:
                with torch.autocast(device, dtype=precision):
                    loss = F.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if device == "cpu":
                loss.item()

    return run


class Block(nn.Module):
    """The basic block as torchvision has it, with the parameter-free shortcut of CIFAR networks."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.more:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        out += x
        return self.relu(out)


def usual_net() -> nn.Module:
    """A ResNet-20 as it is often written."""
    widths = [16] * 4 + [32] * 3 + [64] * 3
    blocks = [Block(a, b, 1 if a == b else 2) for a, b in pairwise(widths)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class ByHand(Dataset[tuple[Tensor, Tensor]]):
    """An image at a time: to [0, 1], normalised, padded, cropped and mirrored."""

    def __init__(self, data: ImageData) -> None:
        assert isinstance(data.train, Split)
        self.images, self.labels = data.train.images, data.train.labels
        norm = data.normalisation
        self.mean, self.sd = (torch.tensor(values).view(3, 1, 1) / 255 for values in (norm.mean, norm.std))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        image = F.pad(self.images[number], (4, 4, 4, 4))
        row, column = (int(torch.randint(0, 9, ())) for _ in range(2))
        image = image[:, row : row + 32, column : column + 32]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image.float() / 255 - self.mean) / self.sd, self.labels[number]


class WithTransforms(Dataset[tuple[Tensor, int]]):
    """torchvision's ``CIFAR10`` with its transforms: a PIL image at a time."""

    def __init__(self, data: ImageData, transforms: Any) -> None:
        assert isinstance(data.train, Split)
        self.images = data.train.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = data.train.labels.tolist()
        mean, sd = ([value / 255 for value in values] for values in (data.normalisation.mean, data.normalisation.std))
        steps = [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.transform = transforms.Compose([*steps, transforms.Normalize(mean, sd)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[number])), self.labels[number]


def usual_batches(data: ImageData, batch_size: int, workers: int, transforms: Any = None) -> Batches:
    """The usual ``DataLoader``; ``transforms`` are torchvision's, without them by hand. Workers stay."""
    return DataLoader(
        ByHand(data) if transforms is None else WithTransforms(data, transforms),  # type: ignore[arg-type]
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


class Convolutions:
    """The convolutions of a network alone, forward and backward, on inputs of their shapes made before: no norm, no
    ReLU, no sum, no optimizer."""

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        self.found: list[tuple[nn.Module, Tensor, Tensor]] = []
        layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
        handles = [layer.register_forward_hook(self.keep) for layer in layers]
        with torch.no_grad():
            net(images)
        for handle in handles:
            handle.remove()

    def keep(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # The first one's images need no gradient.
        made = torch.randn_like(inputs[0]).requires_grad_(bool(self.found))
        self.found.append((layer, made, torch.randn_like(output)))

    def __call__(self) -> None:
        for layer, made, gradient in self.found:
            layer(made).backward(gradient)
            made.grad = layer.weight.grad = None


def load_torchvision() -> tuple[Any, Any] | None:
    """torchvision, where it can be imported, and what must live as long as it: beside a CPU torch, shapes of two
    operators that are not there."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchvision
            import torchvision.transforms
    except Exception:  # a wheel for another torch fails in any way
        return None
    return torchvision, library


def load_timm() -> Any:
    """timm, which imports torchvision first, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import timm
            import timm.data
    except Exception:
        return None
    return timm


def folder_batches(place: Path, batch_size: int, workers: int, torchvision: Any) -> Batches:
    """torchvision's ``ImageFolder``, as its reference script for ImageNet reads it."""
    transforms = torchvision.transforms
    steps = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    norm = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return DataLoader(
        torchvision.datasets.ImageFolder(str(place), transforms.Compose([*steps, norm])),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def timm_batches(place: Path, batch_size: int, workers: int, timm: Any, device: str = "cpu") -> Batches:
    """timm's loader of a folder, with its augmentation for ImageNet and nothing else on."""
    data = timm.data.create_dataset(name="", root=str(place), is_training=True)
    batches: Batches = timm.data.create_loader(
        data,
        input_size=(3, 224, 224),
        batch_size=batch_size,
        is_training=True,
        color_jitter=None,
        num_workers=workers,
        use_prefetcher=device != "cpu",
        device=torch.device(device),
        persistent_workers=workers > 0,
    )
    return batches


def load_lightning() -> Any:
    """Lightning's pytorch module, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lightning import pytorch
    except Exception:
        return None
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return pytorch


def lightning_run(
    net: nn.Module, batches: Batches, lr: float, pytorch: Any, *, device: str = "cpu", precision: str = "32-true"
) -> Callable[[], None]:
    """One epoch of Lightning's ``Trainer``, which logs loss and accuracy as its first example does."""

    class Module(pytorch.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            logits = self.net(batch[0])
            loss = F.cross_entropy(logits, batch[1])
            self.log_dict({"loss": loss, "accuracy": (logits.argmax(1) == batch[1]).float().mean()})
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def run() -> None:
        trainer = pytorch.Trainer(
            max_epochs=1,
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(Module(), batches)

    return run
