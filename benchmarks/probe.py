"""What it costs to look: passes forward and back with the probe beside plain ones, in one process.

python benchmarks/probe.py --out probe.json

1. plain: forward, loss and backward, which leaves the gradient of every parameter.
2. watched: the same with a ``Probe`` around it, and its statistics fetched.
3. diagnosed: what ``diagnose --what gradients residuals`` does with a network: the probe, the norms of the gradients of
   all weights, and the network left as it was.

They take turns, so that a busy machine slows all alike, and every other turn goes backwards; a ratio is that to the
plain pass of the same turn.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from turns import take_turns

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.diagnostics.probes import Probe
from resnetlab.models.zoo import create_model
from resnetlab.train.gradients import block_gradients


def passes(net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Callable[[], None]]:
    """The three kinds of pass."""

    def plain() -> None:
        F.cross_entropy(net(images), labels).backward()
        net.zero_grad(set_to_none=True)

    def watched() -> None:
        with Probe(net) as probe:
            plain()
        probe.statistics()

    def diagnosed() -> None:
        with Probe(net) as probe:
            block_gradients(net, images, labels)
        probe.statistics()

    return {"plain": plain, "watched": watched, "diagnosed": diagnosed}


def ratios(seconds: dict[str, list[float]], name: str) -> dict[str, float]:
    """Median and quartiles of a pass over the plain one of its turn."""
    each = [ours / plain for ours, plain in zip(seconds[name], seconds["plain"], strict=True)]
    low, middle, high = quantiles(each, n=4, method="inclusive")
    return {"median": middle, "quartile_1": low, "quartile_3": high}


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--turns", type=int, default=9, help="2 or more")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    images = torch.randn(given.batch_size, 3, given.image_size, given.image_size)
    labels = torch.arange(given.batch_size)
    seconds = take_turns(passes(create_model(given.model).train(), images, labels), given.turns)
    found = {name: ratios(seconds, name) for name in seconds if name != "plain"}
    if given.out:
        write_json(
            given.out,
            {
                "settings": {key: value for key, value in vars(given).items() if key != "out"},
                "seconds": seconds,
                "over_plain": found,
                "environment": describe_environment("cpu", given.threads),
            },
        )
    sys.stdout.write(f"{given.model}, batch {given.batch_size}: plain {median(seconds['plain']):.2f} s")
    for name, one in found.items():
        sys.stdout.write(f", {name} {one['median']:.2f} ({one['quartile_1']:.2f} to {one['quartile_3']:.2f}) times it")
    sys.stdout.write(f" (medians and quartiles of {given.turns} turns)\n")


if __name__ == "__main__":
    main()
