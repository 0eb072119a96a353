"""What is compared takes turns, so that a busy machine slows all alike."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import quantiles
from time import perf_counter, process_time
from typing import Literal

Clock = Literal["wall", "cpu"]
Run = Callable[[], float | None]
"""One turn. It may say itself how many seconds it took, as one in another process does."""


def take_turns(runs: Mapping[str, Run], turns: int, clock: Clock = "wall") -> dict[str, list[float]]:
    """Seconds of each run in every turn, after one that does not count; every other turn goes backwards."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            seconds[name].append(timed(runs[name], clock))
    return seconds


def timed(run: Run, clock: Clock) -> float:
    """The seconds of one turn, on the wall or of the processor."""
    now = perf_counter if clock == "wall" else process_time
    started = now()
    said = run()
    return now() - started if said is None else said


def serve_turns(run: Run, clock: Clock) -> None:
    """Take a turn for each line on standard input, and say its seconds: what the child of ``in_process`` does."""
    for _ in sys.stdin:
        print(timed(run, clock), flush=True)  # noqa: T201


@contextmanager
def in_process(words: Sequence[str], environment: Mapping[str, str]) -> Iterator[Run]:
    """A run in a process of its own, started by these words of Python; allocator and threads are its own too."""
    process = subprocess.Popen(
        [sys.executable, *words],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    asks, answers = process.stdin, process.stdout

    def run() -> float:
        asks.write("\n")
        asks.flush()
        return float(answers.readline())

    try:
        yield run
    finally:
        asks.close()
        process.wait()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return {"median": middle, "quartile_1": low, "quartile_3": high}


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """An interval that has the true median in it with 95 % at least, whatever the distribution: from the k-th smallest
    value to the k-th largest, where k - 1 of n are below with 2.5 % at most (the sign test)."""
    from scipy.stats import binom

    ordered = sorted(values)
    below = int(binom.ppf(0.025, len(ordered), 0.5)) - 1
    below = max(0, below)
    return ordered[below], ordered[-1 - below]
