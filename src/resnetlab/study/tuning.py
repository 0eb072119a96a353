"""A tuned study: each condition at its best value of one setting, which seeds of their own choose.

First every condition is run at every value with the tuning seeds. When all of these runs have ended, each condition is
judged at the value that was best, with other seeds: what chooses never reports.
"""

from collections.abc import Sequence
from itertools import product, takewhile
from math import log10
from pathlib import Path
from statistics import fmean
from typing import Literal

from resnetlab.core.errors import DataError
from resnetlab.records.study import Band, StudyRun, TriedValue, TunedCondition, Tuning
from resnetlab.study.config import TUNING_SEEDS, Study
from resnetlab.study.outcomes import Outcomes, train_error
from resnetlab.study.plan import PlannedRun, plan_runs, plan_tuning, read_ended
from resnetlab.study.results import study_run
from resnetlab.study.statistics import Values

TUNING = "tuning.json"
"""In the folder of a study that tunes: what was tried and chosen, once all tuning runs have ended."""
RULE = (
    "Each condition is judged at its own best value of {name}: the one with the lowest mean training error after the "
    "last epoch over the tuning seeds, where a run that diverged counts as 100 %; of equal ones the smaller value. The "
    f"tuning seeds are numbered from {TUNING_SEEDS:,} above those that judge, and no figure but those of the tuning is "
    "theirs. The band are the values next to each other, with the chosen one among them, at which every tuning run "
    "trained, by the rule for runs that trained over all tuning runs; its width is the decimal logarithm of the "
    "highest over the lowest. A band that reaches an end of the values tried may be wider."
)


def planned_runs(study: Study, out: Path) -> list[PlannedRun]:
    """The runs that judge in the study in ``out``: of one that tunes, at the values that were chosen.

    Raises ``DataError`` where it is still tuning.
    """
    return plan_runs(study, chosen_values(read_tuning(study, out)))


def read_tuning(study: Study, out: Path) -> Tuning | None:
    """What the tuning runs of the study in ``out`` choose; None where it tunes nothing.

    Raises ``DataError`` where one of them has not ended.
    """
    planned = plan_tuning(study)
    ended = [run for run in planned if run.has_ended(out)]
    if len(ended) < len(planned):
        raise DataError(
            f"the study in {out} is still tuning: {len(ended)} of {len(planned)} tuning runs have ended, and none that "
            "judges can begin; give the command of the study again"
        )
    return make_tuning([study_run(run.values, run.seed, read_ended(run, out)) for run in planned], study)


def make_tuning(runs: Sequence[StudyRun], study: Study) -> Tuning | None:
    """What these runs choose, one for each condition, value and tuning seed, by ``RULE``."""
    if not study.tune:
        return None
    ((name, grid),) = study.tune.items()
    outcomes = Outcomes(runs)
    places = [dict(zip(study.axes, place, strict=True)) for place in product(*study.axes.values())]
    return Tuning(
        name=name,
        grid=list(grid),
        seeds=sorted({run.seed for run in runs}),
        rule=RULE.format(name=name),
        trained_below=outcomes.below,
        conditions=[_choose(place, [_try(runs, outcomes, place, name, value) for value in grid]) for place in places],
    )


def chosen_values(tuning: Tuning | None) -> dict[tuple[str, ...], dict[str, str]] | None:
    """The chosen value of the tuned setting by the values of a condition, as ``plan_runs`` takes them."""
    if tuning is None:
        return None
    return {tuple(one.values.values()): {tuning.name: one.chosen} for one in tuning.conditions}


def _try(runs: Sequence[StudyRun], outcomes: Outcomes, place: Values, name: str, value: str) -> TriedValue:
    values = {**place, name: value}
    records = [run.record for run in runs if run.values == values]
    return TriedValue(
        value=value,
        n=len(records),
        diverged=sum(record.final is None for record in records),
        trained=sum(outcomes.trained(values).values()),
        train_error=fmean(train_error(record) if record.final else 1.0 for record in records),
    )


def _choose(place: Values, tried: Sequence[TriedValue]) -> TunedCondition:
    """The best of the values tried, which rise; ``min`` takes the first of equal ones."""
    best = min(range(len(tried)), key=lambda number: round(tried[number].train_error, 12))
    return TunedCondition(
        values=place,
        chosen=tried[best].value,
        edge=_edge(best, len(tried)),
        band=_band(best, tried),
        tried=list(tried),
    )


def _band(best: int, tried: Sequence[TriedValue]) -> Band | None:
    def every(number: int) -> bool:
        return tried[number].trained == tried[number].n

    if not every(best):
        return None
    low = best - len(list(takewhile(every, range(best - 1, -1, -1))))
    high = best + len(list(takewhile(every, range(best + 1, len(tried)))))
    return Band(
        low=tried[low].value,
        high=tried[high].value,
        decades=log10(float(tried[high].value) / float(tried[low].value)),
        open_below=low == 0,
        open_above=high == len(tried) - 1,
    )


def _edge(best: int, count: int) -> Literal["", "lowest", "highest"]:
    return "lowest" if best == 0 else "highest" if best == count - 1 else ""
