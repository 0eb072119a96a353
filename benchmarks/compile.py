"""What compiling costs and gives on a CPU: block by block as ``train --compile`` does it, beside the whole network.

python benchmarks/compile.py --out compile.json

1. compile: seconds of the first step of a process beyond its second, with an empty cache of Inductor (cold) and with
   the one that this leaves (warm); by the clock, and processor time of the process, to which that of the C++ compiler
   does not count.
2. speed: forward, loss and backward of ``cifar_resnet20`` and ``cifar_resnet110``, eagerly and compiled, in turns in
   one process, so that a busy machine slows all alike; medians of images a second of processor time, and quartiles of
   the ratios of each turn.

Each measurement has a process of its own. The whole graph of 110 layers takes minutes to compile: it has one process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.models.zoo import create_model
from resnetlab.train.compile import compile_parts, eagerly

MODELS = ("cifar_resnet20", "cifar_resnet110")
BATCH = 128


def make_step(net: nn.Module) -> Callable[[], None]:
    """Forward, loss and backward of one batch of noise, 32 pixels."""
    net.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, 32, 32, generator=draw).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % 10

    def step() -> None:
        F.cross_entropy(net(images), labels).backward()
        net.zero_grad(set_to_none=True)

    return step


def seconds_of(step: Callable[[], None]) -> dict[str, float]:
    """What it takes: by the clock, and processor time of this process."""
    clock, processor = perf_counter(), process_time()
    step()
    return {"clock": perf_counter() - clock, "processor": process_time() - processor}


def measure(model: str, kinds: list[str], turns: int) -> dict[str, Any]:
    """In this process: the first two steps of each kind, then all kinds in turns, with the eager one."""
    steps: dict[str, Callable[[], None]] = {}
    first: dict[str, dict[str, float]] = {}
    plain = make_step(create_model(model))
    plain()
    for kind in kinds:
        net = create_model(model)
        steps[kind] = make_step(net)
        if kind == "whole":
            net.compile()
        else:
            compile_parts(net)
        once, again = seconds_of(steps[kind]), seconds_of(steps[kind])
        first[kind] = {name: once[name] - again[name] for name in once}

    def eager() -> None:
        with eagerly():
            plain()

    everything = {"eager": eager} | steps
    times: dict[str, list[float]] = {name: [] for name in everything}
    for turn in range(turns):
        for name in list(everything)[:: -1 if turn % 2 else 1]:
            times[name].append(seconds_of(everything[name])["processor"])
    return {"first": first, "times": times}


def in_a_process(model: str, kinds: list[str], turns: int, cache: str, threads: int) -> dict[str, Any]:
    """``measure`` in a fresh process with that cache of Inductor."""
    words = [sys.executable, __file__, "--measure", model, *kinds, "--turns", str(turns), "--threads", str(threads)]
    done = subprocess.run(
        words, env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}, stdout=subprocess.PIPE, check=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return {"median": middle, "quartile_1": low, "quartile_3": high}


def compare(model: str, turns: int, threads: int) -> dict[str, Any]:
    """Compile times, speeds and ratios of a network."""
    with tempfile.TemporaryDirectory() as cache:
        cold = in_a_process(model, ["blocks"], 0, cache, threads)["first"]["blocks"]
        warm = in_a_process(model, ["blocks"], 0, cache, threads)["first"]["blocks"]
        found = in_a_process(model, ["blocks", "whole"], turns, cache, threads)
    times = found["times"]
    return {
        "seconds_to_compile": {"blocks, cold": cold, "blocks, warm": warm, "whole, cold": found["first"]["whole"]},
        "images_per_second": {name: BATCH / median(values) for name, values in times.items()},
        "blocks_over": {
            name: spread([one / blocks for one, blocks in zip(times[name], times["blocks"], strict=True)])
            for name in ("eager", "whole")
        },
    }


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--turns", type=int, default=9, help="2 or more")
    words.add_argument("--threads", type=int, default=1, help="threads of torch")
    words.add_argument("--models", nargs="+", default=list(MODELS))
    words.add_argument("--measure", nargs="+", help="in this process: a model, and what of blocks and whole")
    words.add_argument("--out", type=Path, help="JSON file of the figures")
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.measure:
        sys.stdout.write(json.dumps(measure(asked.measure[0], asked.measure[1:], asked.turns)) + "\n")
        return
    found, environment = {}, describe_environment("cpu", asked.threads)
    for model in asked.models:
        found[model] = compare(model, asked.turns, asked.threads)
        sys.stdout.write(f"{model} {json.dumps(found[model], indent=1)}\n")
        if asked.out:
            write_json(asked.out, {"turns": asked.turns, "models": found, "environment": environment})


if __name__ == "__main__":
    main()
