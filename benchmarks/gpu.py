"""One GPU: our loop beside those that one would take instead. Needs nothing from outside, and writes one JSON file.

python benchmarks/gpu.py --out gpu.json          # at most 8 minutes
python benchmarks/gpu.py --tiny --out tiny.json  # the same code on a CPU, in about a minute: its figures say nothing

CIFAR nets of 20 and 56 layers at batch 128 and 1,024 on images held on the device, and resnet50 at 224 pixels on images
held there and on JPEGs that are made on the spot; in bf16, ours with --compile and without. Beside them, on the same
images: a loop as torchvision's reference scripts have it (its ``DataLoader``, transforms and ``resnet50`` where it is
installed, by hand else), Lightning's ``Trainer`` and timm's loader where they are installed, and a bare loop over one
batch that lies on the device.

Of each: images a second (quartiles over turns of some steps), the share of the device's own peak, which is that of the
fastest large matrix product or convolution measured here, launches and waits of the host a step by torch's profiler,
and the most memory. Cases that no time is left for are named, and so is what failed, with its reason.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from feed import write_photos
from ours import Ours, noise
from rivals import (
    Batches,
    bare,
    folder_batches,
    lightning_run,
    load_lightning,
    load_timm,
    load_torchvision,
    timm_batches,
    usual_batches,
    usual_net,
)
from torch import Tensor, nn
from turns import Run, spread

from resnetlab.core.environment import describe_environment
from resnetlab.core.errors import one_line
from resnetlab.core.files import write_json
from resnetlab.data.config import AugmentConfig, DecodeConfig
from resnetlab.data.dataset import ImageData
from resnetlab.data.sources import load_data
from resnetlab.models.summary import network_cost
from resnetlab.models.zoo import create_model, model_config
from resnetlab.train.config import Precision, TrainConfig
from resnetlab.train.prepare import make_loader

LR = 0.01
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured: seconds of each case and of all, workers, JPEGs, steps of a turn, batches, the nets, the
    precision, and the side of the matrix of the peak."""

    seconds: float
    budget: float
    workers: int
    files: int
    precision: Precision
    steps: int
    cifar: tuple[str, ...]
    batches: tuple[int, ...]
    large: str
    large_batch: int
    side: int
    matrix: int


FULL = Size(
    seconds=3.0,
    budget=440.0,
    workers=len(os.sched_getaffinity(0)),
    files=4096,
    precision="bf16",
    steps=20,
    cifar=("cifar_resnet20", "cifar_resnet56"),
    batches=(128, 1024),
    large="resnet50",
    large_batch=128,
    side=224,
    matrix=8192,
)
TINY = Size(
    seconds=0.1,
    budget=60.0,
    workers=1,
    files=24,
    precision="fp32",
    steps=2,
    cifar=("cifar_resnet8",),
    batches=(8,),
    large="resnet18",
    large_batch=4,
    side=64,
    matrix=256,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One loop on one set: ``make`` gives a run of some steps, and how many."""

    name: str
    model: str
    side: int
    batch_size: int
    make: Callable[[], tuple[Run, int]]


class Bench:
    """The cases for a device."""

    def __init__(self, size: Size, device: torch.device, photos: Path) -> None:
        self.size, self.device, self.photos = size, device, photos
        self.torchvision, self.lightning, self.timm = load_torchvision(), load_lightning(), load_timm()

    def cases(self) -> Iterator[Case]:
        """Those that matter most first; what must be compiled last, since it takes longest."""
        size = self.size
        for compiled in (False, True):
            for batch in size.batches:
                for model in size.cifar:
                    yield from self.small(model, batch, compiled)
            yield from self.large(compiled)

    def small(self, model: str, batch: int, compiled: bool) -> Iterator[Case]:
        """A net for images of 32 pixels on images that are held on the device."""
        case = partial(Case, model=model, side=32, batch_size=batch)
        data = noise(batch * self.size.steps, 32)
        augment = AugmentConfig(flip=True)
        name = f"{model}, batch {batch}"
        if compiled:
            yield case(name=f"{name}: ours, --compile", make=partial(self.ours, model, data, batch, augment, True))
            return
        yield case(name=f"{name}: ours", make=partial(self.ours, model, data, batch, augment, False))
        yield case(name=f"{name}: bare loop, one batch", make=partial(self.one_batch, model, batch, 32, 10))
        if model != self.size.cifar[0]:
            return
        transforms = self.torchvision and self.torchvision[0].transforms
        usual = partial(usual_batches, data, batch, self.size.workers, transforms)
        yield case(name=f"{name}: usual loop", make=partial(self.usual, usual_net, usual))
        if self.lightning is not None:
            yield case(name=f"{name}: Lightning", make=partial(self.with_lightning, usual_net, usual))

    def large(self, compiled: bool) -> Iterator[Case]:
        """A net for photographs, on noise that is held on the device and on JPEGs."""
        size, augment = self.size, AugmentConfig(random_resized_crop=True, flip=True)
        case = partial(Case, model=size.large, side=size.side, batch_size=size.large_batch)
        name, batch = f"{size.large}, batch {size.large_batch}", size.large_batch
        held = noise(batch * max(2, size.steps // 4), size.side, 2)
        flags = ", --compile" if compiled else ""
        yield case(
            name=f"{name}, held: ours{flags}", make=partial(self.ours, size.large, held, batch, augment, compiled)
        )
        if compiled:
            return
        yield case(
            name=f"{name}, held: bare loop, one batch", make=partial(self.one_batch, size.large, batch, size.side, 2)
        )
        yield case(name=f"{name}, JPEG: ours", make=partial(self.ours_decoding, batch, augment))
        if self.torchvision is None:
            return
        torchvision = self.torchvision[0]
        net = partial(getattr(torchvision.models, size.large), num_classes=2)
        folder = partial(folder_batches, self.photos, batch, size.workers, torchvision)
        yield case(name=f"{name}, JPEG: torchvision", make=partial(self.usual, net, folder))
        if self.lightning is not None:
            yield case(name=f"{name}, JPEG: Lightning", make=partial(self.with_lightning, net, folder))
        if self.timm is not None:
            loader = partial(timm_batches, self.photos, batch, size.workers, self.timm, self.device.type)
            net = partial(self.timm.create_model, size.large, num_classes=2)
            yield case(name=f"{name}, JPEG: timm", make=partial(self.usual, net, loader))

    def ours(self, model: str, data: ImageData, batch: int, augment: AugmentConfig, compiled: bool) -> tuple[Run, int]:
        config = TrainConfig(
            epochs=10**5, batch_size=batch, augment=augment, precision=self.size.precision, compile=compiled, lr=LR
        )
        loader = make_loader(data, config, self.device)
        net = create_model(model, num_classes=len(data.classes), image_size=data.image_size)
        return Ours(net, loader, config), loader.steps

    def ours_decoding(self, batch: int, augment: AugmentConfig) -> tuple[Run, int]:
        decode = DecodeConfig(image_size=self.size.side, workers=self.size.workers, check="head")
        return self.ours(self.size.large, load_data(self.photos, decode=decode), batch, augment, False)

    def one_batch(self, model: str, batch: int, side: int, classes: int) -> tuple[Run, int]:
        net = create_model(model, num_classes=classes, image_size=side).to(self.device)
        net.to(memory_format=torch.channels_last)
        images = torch.randn(batch, 3, side, side, device=self.device).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(0, classes, (batch,), device=self.device)
        return self.bare(net, [(images, labels)] * self.size.steps), self.size.steps

    def usual(self, make: Callable[[], nn.Module], batches: Callable[[], Batches]) -> tuple[Run, int]:
        found = batches()
        return self.bare(make().to(self.device), found), len(found)  # type: ignore[arg-type]

    def with_lightning(self, make: Callable[[], nn.Module], batches: Callable[[], Batches]) -> tuple[Run, int]:
        found, kind = batches(), self.device.type
        precision = {"bf16": "bf16-mixed", "fp32": "32-true"}[self.size.precision]
        run = lightning_run(make(), found, LR, self.lightning, device=kind, precision=precision)
        return run, len(found)  # type: ignore[arg-type]

    def bare(self, net: nn.Module, batches: Batches) -> Run:
        return bare(net, batches, LR, device=self.device.type, precision=self.dtype)

    @property
    def dtype(self) -> torch.dtype | None:
        """That of mixed precision; None without."""
        return torch.bfloat16 if self.size.precision == "bf16" else None


def wait(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(size: Size, device: torch.device) -> dict[str, float]:
    """TFLOP/s in that precision of a large matrix product and of the 3×3 convolution of a wide stage."""
    n, dtype = size.matrix, torch.bfloat16 if size.precision == "bf16" else torch.float32
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    images = torch.randn(size.matrix // 32, 256, 28, 28, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    layer = nn.Conv2d(256, 256, 3, padding=1, bias=False, device=device, dtype=dtype)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    multiply_adds = {"matrix": n**3, "convolution": len(images) * 28 * 28 * 256 * 256 * 9}
    runs: dict[str, Callable[[], Tensor]] = {"matrix": lambda: a @ b, "convolution": lambda: layer(images)}
    found = {}
    with torch.no_grad():
        for name, run in runs.items():
            best = min(seconds_of(run, device) for _ in range(20 if device.type == "cuda" else 3))
            found[name] = 2 * multiply_adds[name] / best / 1e12
    return found


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds on the wall, with what it has queued."""
    wait(device)
    started = perf_counter()
    run()
    wait(device)
    return perf_counter() - started


def measure(case: Case, size: Size, device: torch.device, most: float) -> dict[str, Any]:
    """The figures of a case; ``most`` are the TFLOP/s of the device."""
    started = perf_counter()
    run, steps = case.make()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    first = seconds_of(run, device)
    # Once more: cuDNN and the allocator have seen every shape by then.
    seconds_of(run, device)
    ready, taken = perf_counter() - started, []
    while len(taken) < 3 or sum(taken) < size.seconds:
        taken.append(seconds_of(run, device))
    speeds = [case.batch_size * steps / seconds for seconds in taken]
    config = model_config(case.model, image_size=case.side)
    flops = 6 * network_cost(config)[1]
    return {
        "turns": len(taken),
        "steps": steps,
        "seconds_of_the_first_turn": first,
        "seconds_until_ready": ready,
        "images_per_second": spread(speeds),
        "share_of_peak": spread([speed * flops / (most * 1e12) for speed in speeds]),
        "memory_MiB": torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
    } | profile(run, steps, device)


def profile(run: Run, steps: int, device: torch.device) -> dict[str, float]:
    """Launches, waits and copies of the host a step; on a CPU the operators that it ran."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
    with torch.profiler.profile(activities=kinds, acc_events=True) as seen:
        seconds_of(run, device)
    counts = Counter({event.key: event.count for event in seen.key_averages()})
    if device.type != "cuda":
        return {"operators_per_step": sum(n for name, n in counts.items() if name.startswith("aten::")) / steps}
    return {
        "launches_per_step": sum(counts[name] for name in LAUNCHES) / steps,
        # The two that end a turn are the benchmark's own.
        "waits_per_step": max(0, sum(counts[name] for name in WAITS) - 2) / steps,
        "copies_per_step": counts["cudaMemcpyAsync"] / steps,
    }


def measure_all(size: Size, device: torch.device, photos: Path) -> dict[str, Any]:
    """Every case that there is time for, by name."""
    began = perf_counter()
    tflops = peak(size, device)
    cases: dict[str, Any] = {}
    left_out, failed = [], {}
    for case in Bench(size, device, photos).cases():
        if perf_counter() - began > size.budget:
            left_out.append(case.name)
            continue
        try:
            cases[case.name] = found = measure(case, size, device, max(tflops.values()))
        except Exception as error:  # one that fails must not lose the others
            failed[case.name] = f"{type(error).__name__}: {one_line(error)}"
            sys.stdout.write(f"{case.name:58} failed: {failed[case.name]}\n")
            continue
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
        speed, share = found["images_per_second"]["median"], found["share_of_peak"]["median"]
        sys.stdout.write(f"{case.name:58}{speed:12,.0f} images/s{100 * share:7.1f} % of peak\n")
    return {"peak_TFLOPs": tflops, "cases": cases, "failed": failed, "left_out": left_out}


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--tiny", action="store_true", help="tiny sizes, on a CPU")
    words.add_argument("--out", type=Path, required=True, help="JSON file of the figures")
    asked = words.parse_args()
    if not asked.tiny and not torch.cuda.is_available():
        words.error("torch finds no CUDA device here; --tiny runs the same code on a CPU")
    device, size = (torch.device("cpu"), TINY) if asked.tiny else (torch.device("cuda"), FULL)
    with TemporaryDirectory() as place:
        write_photos(Path(place), size.files)
        found = measure_all(size, device, Path(place))
    where = torch.cuda.get_device_name() if device.type == "cuda" else str(device)
    environment = describe_environment(where, torch.get_num_threads())
    write_json(asked.out, {"tiny": asked.tiny, "precision": size.precision, **found, "environment": environment})


if __name__ == "__main__":
    main()
