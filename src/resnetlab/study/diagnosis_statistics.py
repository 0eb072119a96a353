"""What a diagnosis says over the seeds of a study: each measure's mean, and its differences paired by seed."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from resnetlab.core.stats import sample
from resnetlab.diagnostics import lesion, residuals
from resnetlab.records import gradients as flow
from resnetlab.records.diagnosis import Analysis, LesionResult
from resnetlab.records.study_diagnosis import ConditionResult, Measure, MeasureContrast, RunResult
from resnetlab.study.statistics import LEVEL, SIGNIFICANT, adjust, compare, compared_places, conditions_of

ValueOf = Callable[[RunResult], float | None]


def _of_lesion(find: Callable[[LesionResult], float | None]) -> ValueOf:
    """Of a net that has learned hardly anything no block is worth anything, which is no sign of redundancy."""

    def found(run: RunResult) -> float | None:
        result = run.net.lesion
        return find(result) if result and lesion.judge(result) != "untrained" else None

    return found


def _swapped(result: LesionResult) -> float | None:
    errors = [change.error for change in result.swapped]
    return median(errors) - result.intact.error if errors else None


def _of_blocks(name: str) -> ValueOf:
    """A number that sums up all blocks."""
    return lambda run: getattr(residuals.summarise(run.net.blocks), name)


MEASURES: dict[Measure, ValueOf] = {
    Measure(name="growth_start", analysis="gradients", words="growth before training", factor=1): (
        lambda run: run.flow_start.growth
    ),
    Measure(name="growth_end", analysis="gradients", words="growth after training", factor=1): (
        lambda run: run.net.flow.growth if run.net.flow else None
    ),
    Measure(name="response", analysis="residuals", words="responses", factor=1): _of_blocks("response"),
    Measure(name="ratio", analysis="residuals", words="‖F‖/‖S‖, plain ‖F‖/‖x‖", factor=1): _of_blocks("ratio"),
    Measure(name="cosine", analysis="residuals", words="cosine of x and y", factor=1): _of_blocks("cosine"),
    Measure(name="intact", analysis="lesion", words="error, %", factor=100): (
        lambda run: run.net.lesion.intact.error if run.net.lesion else None
    ),
    Measure(name="typical", analysis="lesion", words="one left out, median", factor=100): (
        _of_lesion(lambda result: median(result.costs))
    ),
    Measure(name="worst", analysis="lesion", words="one left out, worst", factor=100): (
        _of_lesion(lambda result: max(result.costs))
    ),
    Measure(name="swapped", analysis="lesion", words="two exchanged, median", factor=100): (_of_lesion(_swapped)),
}
"""What is measured of every run, and how."""

RULES = (
    "Growth is that of ‖∇W‖/‖W‖ from the last block to the first, in orders of magnitude. Responses are standard "
    "deviations behind the last norm of each block, averaged over the blocks (He et al. 2015, Figure 7). ‖F‖/‖S‖ and "
    "the cosine between a block's input and output are medians over the blocks. What a block is worth is the rise of "
    "the error without it, in points; of a net that is untrained by the rule of lesions, no block is counted.",
    "Each value of an axis is compared with its first one, paired by seed, wherever both runs have the measure. "
    f"The {LEVEL:.0%} intervals are Student's; Holm's rule takes all contrasts of the same measure together. A "
    "comparison is bimodal where of the runs of one of its conditions some are untrained by the rule of lesions and "
    f"others are not. {SIGNIFICANT}",
    f"Gradients: {flow.RULE}",
    f"Residuals: {residuals.RULE}",
    f"Lesion: {lesion.RULE}",
)


def measures_of(analyses: Sequence[Analysis]) -> list[Measure]:
    """The measures that these analyses give."""
    return [measure for measure in MEASURES if measure.analysis in analyses]


def combine(runs: Sequence[RunResult], measures: Sequence[Measure]) -> list[ConditionResult]:
    """Mean and standard deviation of every measure in every condition that has a run, in the order of the runs."""
    found = []
    for values in conditions_of(runs):
        ours = [run for run in runs if run.values == values]
        known = {measure.name: list(_by_seed(ours, measure).values()) for measure in measures}
        found.append(
            ConditionResult(
                values=values,
                n=len(ours),
                measures={name: sample(numbers) if numbers else None for name, numbers in known.items()},
                verdicts=_verdicts(ours),
            )
        )
    return found


def contrast(
    runs: Sequence[RunResult], axes: Mapping[str, Sequence[str]], compared: Sequence[str], measures: Sequence[Measure]
) -> list[MeasureContrast]:
    """Every value of each axis in ``compared`` minus its first one, paired by seed, for every measure."""
    places = [place for place in compared_places(axes, conditions_of(runs)) if place[0] in compared]
    columns = {
        measure.name: adjust(
            [
                compare(
                    _by_seed(_runs_at(runs, {**others, axis: value}), measure),
                    _by_seed(_runs_at(runs, {**others, axis: first}), measure),
                    any(_is_mixed(_runs_at(runs, {**others, axis: one})) for one in (value, first)),
                )
                for axis, first, value, others in places
            ]
        )
        for measure in measures
    }
    return [
        MeasureContrast(
            axis=axis,
            first=first,
            value=value,
            others=others,
            differences={name: column[number] for name, column in columns.items()},
        )
        for number, (axis, first, value, others) in enumerate(places)
    ]


def _runs_at(runs: Sequence[RunResult], values: Mapping[str, str]) -> list[RunResult]:
    return [run for run in runs if run.values == values]


def _is_mixed(runs: Sequence[RunResult]) -> bool:
    """Whether some of the runs have learned hardly anything and others have."""
    return len({lesion.judge(run.net.lesion) == "untrained" for run in runs if run.net.lesion}) == 2


def _by_seed(runs: Sequence[RunResult], measure: Measure) -> dict[int, float]:
    found = {run.seed: MEASURES[measure](run) for run in runs}
    return {seed: number for seed, number in found.items() if number is not None}


def _verdicts(runs: Sequence[RunResult]) -> dict[str, dict[str, int]]:
    """How many runs have which verdict, by analysis."""
    counts: dict[str, dict[str, int]] = {}
    for run in runs:
        found: dict[str, str] = {}
        if run.net.flow:
            found["gradients"] = run.net.flow.verdict
        if run.net.blocks:
            found["residuals"] = residuals.summarise(run.net.blocks).verdict
        if run.net.lesion:
            found["lesion"] = lesion.judge(run.net.lesion)
        for analysis, verdict in found.items():
            here = counts.setdefault(analysis, {})
            here[verdict] = here.get(verdict, 0) + 1
    return counts
