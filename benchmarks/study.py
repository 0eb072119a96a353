"""A study of many tiny runs: what a run, the tables and the page cost, the size of the folder, and what workers bring.

    python benchmarks/study.py --out docs/results/study.json
    git worktree add ../before 7b7e2d7 && python benchmarks/study.py --before ../before/src

Each run is an MLP of 10 layers on digits that takes one step, so that what is left is what every run costs. CPU time is
that of the command and its workers; the same command again, when all is recorded, is start, tables and page. With
``--before`` the code of another commit does the same study, in turns. ``--demo`` times the study of ``make demo``
instead, by the default of both commands, once each. The speed of two workers and of ``--demo`` is time on the wall:
leave the machine to it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json

TINY = ("--axis", "depth=10", "--model", "mlp_resnet10", "--epochs", "1", "--max-steps", "1", "--device", "cpu")
DEMO = ("--seeds", "5")
NOW = Path(__file__).parents[1] / "src"


@dataclass(frozen=True)
class Cost:
    """Seconds of a command: on the wall, and of the processor with the processes that it waited for."""

    wall: float
    processor: float


def cost(source: Path, words: tuple[str, ...]) -> Cost:
    """Run the command with the code in ``source``."""
    started = perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "resnetlab", *words],
        env=os.environ | {"PYTHONPATH": str(source)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, words
    return Cost(perf_counter() - started, usage.ru_utime + usage.ru_stime)


def measure(source: Path, runs: int, workers: tuple[str, ...]) -> dict[str, float]:
    """A study and the same command again."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "study"
        words = ("study", *TINY, "--seeds", str(runs), *workers, "--out", str(out))
        first, again = cost(source, words), cost(source, words)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {
        "wall": first.wall,
        "processor": first.processor,
        "again": again.processor,
        "run": (first.processor - again.processor) / runs,
        "bytes_a_run": size / runs,
    }


def compare(runs: int, turns: int, before: Path | None) -> dict[str, Any]:
    """One worker and two, and the code of before where it is given, taking turns."""
    ways = {"one worker": (NOW, ("--workers", "1")), "two workers": (NOW, ("--workers", "2"))}
    if before:
        ways["before"] = (before, ())
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for turn in range(turns):
        for name in list(ways)[:: -1 if turn % 2 else 1]:
            source, workers = ways[name]
            found[name].append(measure(source, runs, workers))
            print(name, *(f"{key} {value:.4g}" for key, value in found[name][-1].items()), sep="  ")  # noqa: T201
    one, two = ([turn["wall"] for turn in found[name]] for name in ("one worker", "two workers"))
    record: dict[str, Any] = {
        "runs": runs,
        "turns": found,
        "two_workers": [a / b for a, b in zip(one, two, strict=True)],
    }
    if before:
        record["saved"] = {
            key: median(turn[key] for turn in found["one worker"]) / median(turn[key] for turn in found["before"])
            for key in ("run", "again", "bytes_a_run")
        }
    return record


def compare_demo(before: Path) -> dict[str, Any]:
    """The demo's study, by the default of both commands."""
    seconds = {}
    for name, source in (("before", before), ("now", NOW)):
        with tempfile.TemporaryDirectory() as folder:
            seconds[name] = cost(source, ("study", *DEMO, "--out", f"{folder}/study")).wall
    return {"demo": seconds, "ratio": seconds["now"] / seconds["before"]}


def main() -> None:
    """Print the figures, and write them as JSON where ``--out`` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--runs", type=int, default=200, help="runs of the study")
    parser.add_argument("--turns", type=int, default=3, help="how often each way is timed")
    parser.add_argument("--before", type=Path, help="folder src of another commit")
    parser.add_argument("--demo", action="store_true", help="compare the study of make demo instead")
    given = parser.parse_args()
    if given.demo and not given.before:
        parser.error("--demo compares with another commit: give --before")
    record = compare_demo(given.before) if given.demo else compare(given.runs, given.turns, given.before)
    record["environment"] = describe_environment("cpu", threads=1)
    print({key: value for key, value in record.items() if key not in ("turns", "environment")})  # noqa: T201
    if given.out:
        write_json(given.out, record)


if __name__ == "__main__":
    main()
