"""What it costs to look: a pass with the probe beside a plain one, forward and back, in one run.

``python benchmarks/probe.py --out FILE`` writes the figures as JSON and shows them. Plain and probed passes alternate;
the ratio is that of their medians. A probed pass also takes the norms of all gradients of weights.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch.nn import functional as F

from resnetlab.diagnostics.gradients import block_gradients
from resnetlab.diagnostics.probes import Probe
from resnetlab.environment import describe_environment
from resnetlab.files import write_json
from resnetlab.models.zoo import create_model


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    net = create_model(given.model).train()
    images = torch.randn(given.batch_size, 3, given.image_size, given.image_size)
    labels = torch.arange(given.batch_size)

    def plain() -> None:
        F.cross_entropy(net(images), labels).backward()
        net.zero_grad(set_to_none=True)

    def probed() -> None:
        with Probe(net) as probe:
            block_gradients(net, images, labels)
        probe.readings()

    plain()
    times: dict[str, list[float]] = {"plain": [], "probed": []}
    for _ in range(given.rounds):
        for name, call in (("plain", plain), ("probed", probed)):
            started = perf_counter()
            call()
            times[name].append(perf_counter() - started)
    ratio = median(times["probed"]) / median(times["plain"])
    found = {
        "settings": {key: value for key, value in vars(given).items() if key != "out"},
        "seconds": times,
        "ratio": ratio,
        "environment": describe_environment("cpu", given.threads),
    }
    if given.out:
        write_json(given.out, found)
    plainly, looking = median(times["plain"]), median(times["probed"])
    sys.stdout.write(
        f"{given.model}, batch {given.batch_size}: plain {plainly:.2f} s, probed {looking:.2f} s, "
        f"ratio {ratio:.2f} (medians of {given.rounds})\n"
    )


if __name__ == "__main__":
    main()
