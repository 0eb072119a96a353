"""What the formats of an exported network cost: size, CPU time of an image and what they answer, in one process.

python benchmarks/export.py runs/fashion --out docs/results/export.json

The run is exported with the gates of ``resnetlab export``; then torch in float32 and every format that was kept take
turns over the first test images, with one thread. CPU time, unlike time on the clock, hardly minds a busy machine.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import torch

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.core.serialize import as_plain
from resnetlab.deploy.compare import size_of
from resnetlab.deploy.engines import open_predictor
from resnetlab.deploy.export import ExportConfig, export, images_of
from resnetlab.deploy.formats import pixels_of
from resnetlab.deploy.load import load

ENGINES = ("torch", "pt2", "onnx", "openvino", "int8")


def main() -> None:
    """Export, measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default=None)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as place:
        folder = Path(place) / "bundle"
        config = ExportConfig(to=("onnx", "openvino", "int8", "pt2"))
        bundle, verification = export(given.run, folder, config, data=given.data)
        trained = load(folder, device="cpu")
        images = images_of(load(given.run, device="cpu"), given.data).reported
        pixels = pixels_of(images, np.arange(min(given.images, len(images))), trained.preprocessing)
        predictors = {name: open_predictor(folder, name, threads=1, device="cpu") for name in ENGINES}
        turns: dict[str, dict[str, list[float]]] = {}
        for batch in given.batches:
            few = pixels[: max(batch, len(pixels) // (4 if batch == 1 else 1))]
            times: dict[str, list[float]] = {name: [] for name in ENGINES}
            for turn in range(given.turns):
                for name in ENGINES if turn % 2 else reversed(ENGINES):
                    start = process_time()
                    for at in range(0, len(few), batch):
                        predictors[name].logits(few[at : at + batch])
                    times[name].append(1000 * (process_time() - start) / len(few))
            turns[str(batch)] = times
        found = {
            "settings": {"images": len(pixels), "turns": given.turns},
            "model": bundle.model,
            "results": bundle.results,
            "formats": [as_plain(check) for check in verification.formats],
            "milliseconds": turns,
            "faster": {
                batch: {
                    name: median(eager / ours for eager, ours in zip(times["torch"], times[name], strict=True))
                    for name in ENGINES
                }
                for batch, times in turns.items()
            },
            "bytes": {"bundle": size_of(folder)},
            "environment": describe_environment("cpu", 1),
        }
    if given.out:
        write_json(given.out, found)
    for check in verification.formats:
        times = ", ".join(
            f"batch {batch} {median(turns[batch][check.name]):.3f} ms ({found['faster'][batch][check.name]:.2f}×)"
            for batch in turns
        )
        sys.stdout.write(
            f"{check.name:9} {check.bytes / 1000:6.0f} kB  accuracy {100 * (check.accuracy or 0):.2f} %  "
            f"{check.changed} of {check.n:,} answers changed, {check.relative:.1e}; CPU an image: {times}\n"
        )


if __name__ == "__main__":
    main()
