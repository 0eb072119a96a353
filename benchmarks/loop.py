"""What the training loop costs: against bare PyTorch on the same batches, and against the loop as it is often written.

python benchmarks/loop.py --out loop.json

1. overhead: ``train_epoch`` beside a bare loop (forward, loss, backward, SGD) on a tiny network and batches made
   before; what is left between them is the loop itself, in milliseconds a step.
2. throughput: ``cifar_resnet20`` on images of 32 pixels, ours beside torch's ``DataLoader`` with crop and mirror per
   sample, memory format (N, C, H, W) and a network of blocks as torchvision writes them.

What is compared takes turns in one process, so that a busy machine slows all alike; medians over the turns.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from turns import take_turns

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.data.config import AugmentConfig
from resnetlab.data.dataset import ImageData, Split
from resnetlab.data.loader import Loader
from resnetlab.models.zoo import create_model
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import Trainer
from resnetlab.train.prepare import make_loader, move_to

CPU = torch.device("cpu")


class Made(Loader):
    """Batches that were made before, once for all passes."""

    made: list[tuple[Tensor, Tensor]]

    def shuffled(self, *_when: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.made[start:]


def noise(samples: int, side: int) -> ImageData:
    """Noise in colours; what is in an image makes no difference to its speed."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (samples, 3, side, side), generator=draw, dtype=torch.uint8)
    split = Split(images=images, labels=torch.randint(0, 10, (samples,), generator=draw))
    return ImageData(source="noise", train=split, test=split, classes=tuple("0123456789"))


class Ours:
    """One epoch of ``Trainer.train_epoch``, from the first step on, over and over."""

    def __init__(self, net: nn.Module, data: ImageData, config: TrainConfig, batches: list[Any] | None = None) -> None:
        self.net, self.config = net, config
        self.loader = make_loader(data, config, CPU)
        if batches is not None:
            self.loader.__class__ = Made
            self.loader.__dict__["made"] = batches
        self.trainer = Trainer(net, self.loader, config, seed=0)

    def __call__(self) -> None:
        self.trainer.state.begin_epoch()
        self.trainer.train_epoch()


def bare(net: nn.Module, batches: list[tuple[Tensor, Tensor]], config: TrainConfig) -> Callable[[], None]:
    """The least that a step needs. Its loss is read, as everyone does to show it."""
    optimizer = torch.optim.SGD(net.parameters(), lr=config.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def run() -> None:
        net.train()
        for images, labels in batches:
            loss = F.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
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


class Varied(Dataset[tuple[Tensor, Tensor]]):
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


def usual(data: ImageData, config: TrainConfig, workers: int) -> Callable[[], None]:
    """The usual loop over a ``DataLoader``. Workers stay from pass to pass."""
    batches = DataLoader(
        Varied(data),
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return bare(usual_net(), batches, config)  # type: ignore[arg-type]


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return {"median": middle, "quartile_1": low, "quartile_3": high}


def measure_overhead(turns: int, steps: int) -> dict[str, Any]:
    """Milliseconds a step of both loops on 16 images of 8 pixels, and of their differences, for two networks: one
    matrix, whose own time hides nothing, and ``cifar_resnet8``, which shows what the loop costs beside a real one."""
    config = TrainConfig(epochs=1000, batch_size=16, augment=AugmentConfig(crop_padding=0))
    data = noise(16 * steps, 8)
    batches = list(make_loader(data, config, CPU).shuffled(0, 1))
    makers: dict[str, Callable[[], nn.Module]] = {
        "one matrix": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10)),
        "cifar_resnet8": lambda: create_model("cifar_resnet8", image_size=8),
    }
    return {name: overhead_of(make, data, config, batches, turns) for name, make in makers.items()}


def overhead_of(
    make: Callable[[], nn.Module],
    data: ImageData,
    config: TrainConfig,
    batches: list[tuple[Tensor, Tensor]],
    turns: int,
) -> dict[str, Any]:
    """``measure_overhead`` for one network."""
    ours, other = Ours(make(), data, config, batches), make()
    move_to(other, ours.loader)
    seconds = take_turns({"ours": ours, "bare": bare(other, batches, config)}, turns)
    each = {name: [1000 * value / len(batches) for value in values] for name, values in seconds.items()}
    differences = [a - b for a, b in zip(each["ours"], each["bare"], strict=True)]
    return {
        "turns": turns,
        "steps": len(batches),
        "ms_per_step": {name: spread(values) for name, values in each.items()},
        "difference_ms_per_step": spread(differences),
    }


def measure_throughput(turns: int, steps: int, workers: tuple[int, ...]) -> dict[str, Any]:
    """Images a second of ``cifar_resnet20``, batch 128, 32 pixels, float32, and ours over each of the others."""
    config = TrainConfig(epochs=1000, batch_size=128, augment=AugmentConfig(flip=True))
    data = noise(128 * steps, 32)
    runs: dict[str, Callable[[], None]] = {"ours": Ours(create_model("cifar_resnet20"), data, config)}
    runs |= {f"DataLoader, {count} workers": usual(data, config, count) for count in workers}
    seconds = take_turns(runs, turns)
    speeds = {name: [128 * steps / value for value in values] for name, values in seconds.items()}
    return {
        "turns": turns,
        "steps": steps,
        "images_per_second": {name: spread(values) for name, values in speeds.items()},
        "ours_over": {
            name: spread([a / b for a, b in zip(speeds["ours"], values, strict=True)])
            for name, values in speeds.items()
            if name != "ours"
        },
    }


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    """A table of medians and quartiles."""
    sys.stdout.write(f"\n{title:48}{'median':>10}{'quartiles':>24}\n")
    for name, values in rows.items():
        quartiles = f"{values['quartile_1']:.3f} – {values['quartile_3']:.3f}"
        sys.stdout.write(f"{name:48}{values['median']:10.3f}{quartiles:>24}\n")


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument(
        "--turns", type=int, default=15, help="turns of the throughput; the overhead takes four times so many"
    )
    words.add_argument("--steps", type=int, default=20, help="steps in a turn of the throughput")
    words.add_argument("--workers", type=int, nargs="*", default=[0, 2], help="workers of the DataLoaders compared")
    words.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    words.add_argument("--out", type=Path, help="JSON file of the figures")
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    overhead = measure_overhead(4 * asked.turns, steps=50)
    for name, found in overhead.items():
        rows = found["ms_per_step"] | {"ours - bare": found["difference_ms_per_step"]}
        show(f"ms a step, {name}, 16 × 8 px", rows)
    throughput = measure_throughput(asked.turns, asked.steps, tuple(asked.workers))
    show("images a second, cifar_resnet20, 128 × 32 px", throughput["images_per_second"])
    show("ours over", throughput["ours_over"])
    if asked.out:
        environment = describe_environment("cpu", torch.get_num_threads())
        write_json(asked.out, {"overhead": overhead, "throughput": throughput, "environment": environment})


if __name__ == "__main__":
    main()
