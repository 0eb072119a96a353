"""What a command costs before it does anything: CPU time over that of ``import torch``, in processes that take turns.

    python benchmarks/startup.py --out docs/results/startup.json

``evaluate`` is of a small run on 64 images in an npz file; ``report`` draws its page, and that of a study of two runs,
so most of its time is matplotlib's.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json

SMALL = ("--model", "mlp_resnet8", "--epochs", "1", "--batch-size", "16", "--device", "cpu")


def processor_seconds(words: list[str], folder: Path) -> float:
    """CPU time of a process of its own, its output thrown away."""
    child = subprocess.Popen([sys.executable, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, words
    return usage.ru_utime + usage.ru_stime


def prepare(folder: Path) -> dict[str, list[str]]:
    """Make a run and a study in the folder; the commands that are timed."""
    rng = np.random.default_rng(0)
    parts = {f"x_{part}": rng.integers(0, 256, (64, 8, 8), dtype=np.uint8) for part in ("train", "test")}
    labels = {f"y_{part}": np.arange(64) % 4 for part in ("train", "test")}
    np.savez(folder / "made.npz", **parts, **labels)
    command = ["-m", "resnetlab"]
    processor_seconds([*command, "train", "--data", "npz:made.npz", *SMALL, "--out", "run"], folder)
    processor_seconds([*command, "study", "--depths", "8", "--seeds", "1", *SMALL, "--out", "study"], folder)
    return {
        "import torch": ["-c", "import torch"],
        "--help": [*command, "--help"],
        "list": [*command, "list"],
        "info resnet18": [*command, "info", "resnet18"],
        "evaluate RUN": [*command, "evaluate", "run"],
        "report RUN": [*command, "report", "run"],
        "report STUDY": [*command, "report", "study"],
    }


def main() -> None:
    """Print the ratios, and write them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--turns", type=int, default=9, help="how often each command is started")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        commands = prepare(Path(name))
        seconds: dict[str, list[float]] = {command: [] for command in commands}
        for turn in range(given.turns):
            for command in list(commands)[:: -1 if turn % 2 else 1]:
                seconds[command].append(processor_seconds(commands[command], Path(name)))
    yardstick = seconds.pop("import torch")
    ratios = {
        command: [one / torch for one, torch in zip(found, yardstick, strict=True)]
        for command, found in seconds.items()
    }
    for command, found in ratios.items():
        print(f"{command:15} {float(np.median(found)):.2f} × import torch")  # noqa: T201
    record = {
        "turns": given.turns,
        "import_torch_seconds": yardstick,
        "over_import_torch": ratios,
        "environment": describe_environment("cpu", threads=1),
    }
    if given.out:
        write_json(given.out, record)


if __name__ == "__main__":
    main()
