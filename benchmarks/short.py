"""The benchmarks that say most, in short, on a CPU: ``make bench``, at most 10 minutes on two cores.

Each is a process of its own and keeps its JSON file in ``--out``; what is printed are ratios to what one would take
instead. Figures for a document are made by the benchmarks themselves, with more turns, on a machine that rests.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from resnetlab.core.files import read_json

HERE = Path(__file__).parent
Rows = Iterator[tuple[str, float]]


def loop_rows(found: dict[str, Any]) -> Rows:
    """What the loop costs, and how much faster than others it trains."""
    for name, one in found["overhead"].items():
        yield f"loop above bare PyTorch, {name}, ms a step", one["difference_ms_per_step"]["median"]
    for ours in ("ours", "tuned"):
        for name, one in (found["throughput"][f"{ours}_over"] | found["throughput"][f"{ours}_over_parts"]).items():
            yield f"cifar_resnet20, speed of {ours} over {name}", one["median"]


def checkpoint_rows(found: dict[str, Any]) -> Rows:
    """What a checkpoint takes."""
    for name, one in found["over_torch_save"].items():
        yield f"checkpoint of resnet50, {name}, over torch.save", one["median"]


def startup_rows(found: dict[str, Any]) -> Rows:
    """What a command takes before it does anything."""
    for name, values in found["over_import_torch"].items():
        yield f"start of {name}, over import torch", median(values)


def start_rows(found: dict[str, Any]) -> Rows:
    """What a folder of images takes before the first step."""
    for count, one in found["counts"].items():
        for name, values in one["over_image_folder"].items():
            if name != "ImageFolder":
                yield f"{count} JPEGs, {name}, over listing them", values["median"]


def decode_rows(found: dict[str, Any]) -> Rows:
    """How much faster large photographs are decoded at a part of their size."""
    for name, one in found["photos"].items():
        yield f"decoding {name}, Pillow's time over ours", one["median_ratio"]


CHOSEN: dict[str, tuple[list[str], Callable[[dict[str, Any]], Rows]]] = {
    "loop": (["--turns", "3", "--steps", "3"], loop_rows),
    "checkpoint": (["--turns", "3"], checkpoint_rows),
    "startup": (["--turns", "3"], startup_rows),
    "start": (["--counts", "1000", "--turns", "2"], start_rows),
    "decode": (["--turns", "3"], decode_rows),
}
"""The benchmarks, what makes them short, and the rows of each."""


def main() -> int:
    """Run all, and print their ratios; 1 where one failed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the JSON files")
    words.add_argument("--only", nargs="*", choices=CHOSEN, default=list(CHOSEN))
    asked = words.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in asked.only:
        flags, rows = CHOSEN[name]
        started, place = perf_counter(), asked.out / f"{name}.json"
        place.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / f"{name}.py"), *flags, "--out", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            failed.append(name)
            sys.stdout.write(f"{name} failed:\n{done.stdout}{done.stderr}\n")
            continue
        for what, ratio in rows(read_json(place)):
            sys.stdout.write(f"{what:72}{ratio:8.2f}\n")
        sys.stdout.write(f"({name} took {perf_counter() - started:.0f} s)\n\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
