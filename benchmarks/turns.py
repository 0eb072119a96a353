"""What is compared takes turns, so that a busy machine slows all alike."""

from collections.abc import Callable
from time import perf_counter


def take_turns(runs: dict[str, Callable[[], None]], turns: int) -> dict[str, list[float]]:
    """Seconds of each run in every turn, after one that does not count; every other turn goes backwards."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            started = perf_counter()
            runs[name]()
            seconds[name].append(perf_counter() - started)
    return seconds
