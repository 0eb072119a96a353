"""What the training loop costs: against bare PyTorch on the same batches, and against the loop as it is often written.

python benchmarks/loop.py --threads 2 --out loop.json

1. overhead: ``train_epoch`` beside a bare loop (forward, loss, backward, SGD) on a tiny network and batches made
   before; what is left between them is the loop itself, in milliseconds a step, with a 95 % interval of the median.
2. throughput: ``cifar_resnet20`` on images of 32 pixels, ours beside torch's ``DataLoader`` with crop and mirror per
   sample (torchvision's transforms where it is installed, and by hand), memory format (N, C, H, W) and a network of
   blocks as torchvision writes them; beside Lightning's ``Trainer`` on the same, where it is installed; and beside the
   convolutions of the network alone. "tuned" is what ``resnetlab train --tune`` does on this machine.

What is compared takes turns, in one process (1) or in a process each (2), so that a busy machine slows all alike;
medians over the turns, and ratios within a turn. ``--clock cpu`` counts the processor's time instead of the wall's: for
a machine that has other things to do, with one thread and no workers.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ours import Ours, noise
from rivals import Convolutions, bare, lightning_run, load_lightning, load_torchvision, usual_batches, usual_net
from torch import Tensor, nn
from turns import Clock, Run, in_process, median_interval, serve_turns, spread, take_turns

from resnetlab.cli.tune import TUNED, find_tcmalloc, free_main_thread, tuning
from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.data.config import AugmentConfig
from resnetlab.data.dataset import ImageData
from resnetlab.data.loader import Loader
from resnetlab.models.zoo import create_model
from resnetlab.train.config import TrainConfig
from resnetlab.train.heap import keep_freed_memory
from resnetlab.train.prepare import make_loader, move_to

CPU = torch.device("cpu")


class Made(Loader):
    """Batches that were made before, once for all passes."""

    made: list[tuple[Tensor, Tensor]]

    def shuffled(self, *_when: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self.made[start:]


def measure_overhead(turns: int, steps: int, clock: Clock) -> dict[str, Any]:
    """Milliseconds a step of both loops on 16 images of 8 pixels, and of their differences, for two networks: one
    matrix, whose own time hides nothing, and ``cifar_resnet8``, which shows what the loop costs beside a real one."""
    config = TrainConfig(epochs=1000, batch_size=16, augment=AugmentConfig(crop_padding=0))
    data = noise(16 * steps, 8)
    batches = list(make_loader(data, config, CPU).shuffled(0, 1))
    makers: dict[str, Callable[[], nn.Module]] = {
        "one matrix": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10)),
        "cifar_resnet8": lambda: create_model("cifar_resnet8", image_size=8),
    }
    return {name: overhead_of(make, data, config, batches, turns, clock) for name, make in makers.items()}


def overhead_of(
    make: Callable[[], nn.Module],
    data: ImageData,
    config: TrainConfig,
    batches: list[tuple[Tensor, Tensor]],
    turns: int,
    clock: Clock,
) -> dict[str, Any]:
    """``measure_overhead`` for one network."""
    loader, other = make_loader(data, config, CPU), make()
    loader.__class__ = Made
    loader.__dict__["made"] = batches
    ours = Ours(make(), loader, config)
    move_to(other, loader)
    seconds = take_turns({"ours": ours, "bare": bare(other, batches, config.lr)}, turns, clock)
    each = {name: [1000 * value / len(batches) for value in values] for name, values in seconds.items()}
    differences = [a - b for a, b in zip(each["ours"], each["bare"], strict=True)]
    return {
        "turns": turns,
        "steps": len(batches),
        "ms_per_step": {name: spread(values) for name, values in each.items()},
        "difference_ms_per_step": spread(differences) | {"interval_95": median_interval(differences)},
    }


BATCH, OURS, BARE, CONVOLUTIONS = 128, "ours", "our net, batches made before", "convolutions alone"


def makers(steps: int) -> dict[str, Callable[[], Run]]:
    """What is compared on ``cifar_resnet20``, by name: each makes a run of ``steps`` steps."""
    config = TrainConfig(epochs=1000, batch_size=BATCH, augment=AugmentConfig(flip=True))
    data = noise(BATCH * steps, 32)
    transforms, lightning = load_torchvision(), load_lightning()

    def made() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
        net, loader = create_model("cifar_resnet20"), make_loader(data, config, CPU)
        move_to(net, loader)
        return net, list(loader.shuffled(0, 1))

    def convolutions() -> Run:
        net, batches = made()
        one = Convolutions(net, batches[0][0])

        def run() -> None:
            for _ in range(steps):
                one()

        return run

    def usual(workers: int, transforms: Any = None) -> Run:
        return bare(usual_net(), usual_batches(data, BATCH, workers, transforms), config.lr)

    def ours() -> Run:
        keep_freed_memory()
        return Ours(create_model("cifar_resnet20"), make_loader(data, config, CPU), config)

    def with_made() -> Run:
        return bare(*made(), config.lr)

    found: dict[str, Callable[[], Run]] = {OURS: ours, f"{OURS}, tuned": ours, BARE: with_made}
    found |= {CONVOLUTIONS: convolutions, f"{CONVOLUTIONS}, tuned": convolutions}
    for workers in (0, 2):
        found[f"DataLoader, {workers} workers"] = partial(usual, workers)
        if transforms is not None:
            found[f"torchvision, {workers} workers"] = partial(usual, workers, transforms[0].transforms)
    if lightning is not None:
        images = transforms and transforms[0].transforms

        def with_lightning() -> Run:
            return lightning_run(usual_net(), usual_batches(data, BATCH, 0, images), config.lr, lightning)

        found["Lightning, 0 workers"] = with_lightning
    return found


def measure_throughput(turns: int, steps: int, threads: int, workers: list[int], clock: Clock) -> dict[str, Any]:
    """Images a second of ``cifar_resnet20``, batch 128, 32 pixels, float32, and ours over each of the others."""
    plain = {"OMP_NUM_THREADS": str(threads)}
    tuned = plain | tuning(plain, find_tcmalloc(), os.sched_getaffinity(0))
    left_out = {f", {count} workers" for count in (0, 2) if count not in workers}
    names = [name for name in makers(2) if not any(name.endswith(end) for end in left_out)]
    with ExitStack() as stack:
        runs = {}
        for name in names:
            words = [__file__, "--take", name, "--steps", str(steps), "--threads", str(threads), "--clock", clock]
            runs[name] = stack.enter_context(in_process(words, tuned if name.endswith(", tuned") else plain))
        seconds = take_turns(runs, turns)
    speeds = {name: [BATCH * steps / value for value in values] for name, values in seconds.items()}

    def over(name: str, others: list[str]) -> dict[str, dict[str, float]]:
        return {other: spread([a / b for a, b in zip(speeds[name], speeds[other], strict=True)]) for other in others}

    loops = [name for name in names if name.endswith("workers")]
    return {
        "turns": turns,
        "steps": steps,
        "clock": clock,
        "tuned": sorted(tuned.keys() - plain.keys() - {TUNED}),
        "images_per_second": {name: spread(values) for name, values in speeds.items()},
        "ours_over": over(OURS, loops),
        "tuned_over": over(f"{OURS}, tuned", [OURS, *loops]),
        "ours_over_parts": over(OURS, [BARE, CONVOLUTIONS]),
        "tuned_over_parts": over(f"{OURS}, tuned", [CONVOLUTIONS, f"{CONVOLUTIONS}, tuned"]),
    }


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """A table of medians and quartiles, and of 95 % intervals where there are some."""
    sys.stdout.write(f"\n{title:48}{'median':>10}{'quartiles':>24}\n")
    for name, values in rows.items():
        quartiles = f"{values['quartile_1']:.3f} – {values['quartile_3']:.3f}"
        within = "   95 %: {:.3f} – {:.3f}".format(*values["interval_95"]) if "interval_95" in values else ""
        sys.stdout.write(f"{name:48}{values['median']:10.3f}{quartiles:>24}{within}\n")


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument(
        "--turns", type=int, default=15, help="turns of the throughput; the overhead takes eight times so many"
    )
    words.add_argument("--steps", type=int, default=20, help="steps in a turn of the throughput")
    words.add_argument("--workers", type=int, nargs="*", default=[0, 2], choices=[0, 2], help="of the DataLoaders")
    words.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    words.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="what is counted")
    words.add_argument("--out", type=Path, help="JSON file of the figures")
    words.add_argument("--take", help=argparse.SUPPRESS)
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.take:
        free_main_thread()
        serve_turns(makers(asked.steps)[asked.take](), asked.clock)
        return
    overhead = measure_overhead(8 * asked.turns, 50, asked.clock)
    for name, found in overhead.items():
        rows = found["ms_per_step"] | {"ours - bare": found["difference_ms_per_step"]}
        show(f"ms a step, {name}, 16 × 8 px", rows)
    throughput = measure_throughput(asked.turns, asked.steps, asked.threads, asked.workers, asked.clock)
    show("images a second, cifar_resnet20, 128 × 32 px", throughput["images_per_second"])
    for key in ("ours_over", "tuned_over", "ours_over_parts", "tuned_over_parts"):
        show(key.replace("_", " "), throughput[key])
    sys.stdout.write(f"\ntuned by {', '.join(throughput['tuned']) or 'nothing: tcmalloc is not there'}\n")
    if asked.out:
        environment = describe_environment("cpu", torch.get_num_threads())
        write_json(asked.out, {"overhead": overhead, "throughput": throughput, "environment": environment})


if __name__ == "__main__":
    main()
