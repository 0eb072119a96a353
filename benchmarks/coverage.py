"""How often intervals and verdicts of a study are right, where errors are normal and where a run trains or does not.

python benchmarks/coverage.py --out docs/results/coverage.json

Each trial is a study of plain nets at two depths with n seeds, of which the truth is known. A net trains with a given
chance; its error is then 2 %, else 88 %, give or take some tenths of a point. Normal errors have a standard deviation
of 5 points.

1. ``student``, ``bootstrap``: the shallow net always trains, the deep one with that chance. How often does the 95 %
   interval of the mean difference have the true one in it? A trial without an interval does not.
2. ``share``: how often does the exact interval of the share of deep nets that train?
3. ``unseen``: how often is the answer "does not grow" all the same, with n seeds in which none failed?
4. ``bound``: how often is the share of runs that are worse at most the bound that such an answer would state?
5. ``grows``: both nets train with that chance, so that nothing grows. How often is the answer "grows"?
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.core.randomness import generator
from resnetlab.core.stats import bootstrap_interval, exact_share, largest_share, paired_interval
from resnetlab.records.gradients import Flow
from resnetlab.records.run import EpochRecord, Metrics, RunRecord
from resnetlab.records.study import StudyRun
from resnetlab.study.degradation import make_verdicts

SEEDS = (3, 5, 10, 20)
CHANCES = (None, 0.5, 0.8, 0.9)
"""That a net trains; None for normal errors."""
TRAINED, FAILED, SPREAD = 0.02, 0.88, 0.05


def draw(rng: np.random.Generator, chance: float | None, n: int, mean: float = 0.30) -> np.ndarray:
    """The errors of n runs; normal ones around the mean, or those of runs that train with that chance."""
    if chance is None:
        return rng.normal(mean, SPREAD, n)
    return np.where(rng.uniform(size=n) < chance, rng.normal(TRAINED, 0.004, n), rng.normal(FAILED, 0.008, n))


def answer_of(shallow: np.ndarray, deep: np.ndarray) -> str:
    """The verdict on plain nets of two depths with these errors."""
    errors = {"8": shallow, "56": deep}
    runs = [study_run(depth, seed, float(error)) for depth in errors for seed, error in enumerate(errors[depth])]
    (verdict,) = make_verdicts(runs, {"shortcut": ["none"], "depth": [*errors]})
    return verdict.answer


def study_run(depth: str, seed: int, error: float) -> StudyRun:
    """A run on ten classes of equal size that ends with that error."""
    metrics = Metrics(loss=1.0, error=error, n=1000)
    epoch = EpochRecord(epoch=1, learning_rate=0.1, running_loss=1.0, train=metrics, test=metrics, seconds=1.0)
    record = RunRecord(
        model="cifar_resnet8",
        recipe={},
        parameters=1,
        multiply_adds=1,
        status="finished",
        message="",
        history=[epoch],
        gradients_start=[],
        gradients_end=[],
        data={"train_counts": [100] * 10},
        environment={},
        seconds=1.0,
    )
    flow = Flow(growth=None, verdict="broken")
    values = {"shortcut": "none", "depth": depth}
    return StudyRun(values=values, seed=seed, flow_start=flow, flow_end=flow, record=record)


def measure(chance: float | None, n: int, trials: int) -> dict[str, float | None]:
    """The share of the trials in which each was so, of each that has a meaning for these errors."""
    rng = generator(0, "coverage", str(chance), n)
    counts = dict.fromkeys(("student", "bootstrap", "share", "unseen", "bound", "grows"), 0)
    true = 0.05 if chance is None else (1 - chance) * (FAILED - TRAINED)
    for _ in range(trials):
        shallow = draw(rng, None if chance is None else 1.0, n)
        deep = draw(rng, chance, n, 0.35)
        pair = [*map(float, deep)], [*map(float, shallow)]
        for name, interval in (("student", paired_interval(*pair)), ("bootstrap", bootstrap_interval(*pair))):
            counts[name] += (
                interval.low is not None and interval.high is not None and (interval.low <= true <= interval.high)
            )
        counts["unseen"] += answer_of(shallow, deep) == "does not grow"
        if chance is not None:
            trained = int((deep < (TRAINED + FAILED) / 2).sum())
            share = exact_share(trained, n)
            counts["share"] += share.low <= chance <= share.high
            counts["bound"] += 1 - chance <= largest_share(n - trained, n)
        counts["grows"] += answer_of(draw(rng, chance, n), draw(rng, chance, n)) == "grows"
    known = {name: count / trials for name, count in counts.items()}
    return known if chance is not None else known | {"share": None, "bound": None}


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = []
    for chance in CHANCES:
        for n in given.seeds:
            found.append({"chance": chance, "n": n, **measure(chance, n, given.trials)})
            sys.stdout.write(f"{found[-1]}\n")
    if given.out:
        environment = describe_environment("cpu", 1)
        write_json(given.out, {"trials": given.trials, "rows": found, "environment": environment})


if __name__ == "__main__":
    main()
