"""``python -m tests.faults [NAME …]`` injects faults and counts what held."""

import argparse
import sys
import time
from pathlib import Path

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from tests.faults.processes import Pool
from tests.faults.table import FAULTS, RECORD, read_results, table


class Progress:
    """One line for a fault: how many cases are done, and the time that is left."""

    def __init__(self, name: str) -> None:
        self.name, self.started, self.shown = name, time.perf_counter(), 0.0

    def __call__(self, done: int, cases: int) -> None:
        now = time.perf_counter()
        if now - self.shown < 1 and done < cases:
            return
        self.shown = now
        left = int((now - self.started) / done * (cases - done))
        sys.stderr.write(f"\r\033[K{self.name}: {done} of {cases}, {left // 60}:{left % 60:02} left of this part ")
        sys.stderr.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all by default: {', '.join(FAULTS)}")
    parser.add_argument("--count", type=int, help="how many; each fault's full count by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="cases at a time")
    parser.add_argument("--out", type=Path, help="write the counts here, as JSON, after each fault")
    parser.add_argument("--resume", action="store_true", help="leave out what --out holds already")
    options = parser.parse_args()
    unknown = set(options.names) - FAULTS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(FAULTS)}")
    results = read_results(options.out or RECORD) if options.out else {"environment": {}, "faults": {}}
    for name in options.names or FAULTS:
        if options.resume and name in results["faults"]:
            continue
        started = time.perf_counter()
        count = FAULTS[name].count if options.count is None else options.count
        counts = FAULTS[name].function(count, options.seed, Pool(options.workers, Progress(name)))
        seconds = round(time.perf_counter() - started, 1)
        results["faults"][name] = counts | {"seed": options.seed, "seconds": seconds}
        sys.stderr.write(f"\r\033[K{name}: {counts}, {seconds} s\n")
        if options.out:
            results["environment"] = describe_environment("cpu", threads=1)
            write_json(options.out, results)
    sys.stdout.write(table(results))
    return int(
        any(
            counts["held"] < counts["n"] or not FAULTS[name].control_holds(counts)
            for name, counts in results["faults"].items()
        )
    )


if __name__ == "__main__":
    sys.exit(main())
