"""The tables of a study and its answers as text, for the terminal and for the page alike."""

from collections.abc import Mapping, Sequence
from math import inf
from statistics import median

from resnetlab.records.gradients import Flow
from resnetlab.records.study import (
    Condition,
    Contrast,
    Difference,
    StudyRecord,
    StudyRun,
    Verdict,
    axes_in_words,
    in_words,
)
from resnetlab.report.table import Table, interval, number, percent, plain

QUANTITIES = {
    "train_error": ("training error, points", 100, 2),
    "test_error": ("test error, points", 100, 2),
    "train_loss": ("training loss", 1, 3),
}
"""What is compared: its name in the record, and in a table with its factor and decimals."""
ANSWERS = {"grows": "grows with depth", "does not grow": "does not grow with depth", "undecided": "– undecided"}
HEADINGS = {
    "grows": "grows with depth in {}",
    "does not grow": "does not grow with depth in {}",
    "undecided": "may grow with depth in {}: undecided",
}


def error_table(study: StudyRecord) -> Table:
    """Training and test error of every condition after the last epoch."""
    return Table(
        caption="After the last epoch, in eval mode: mean ± standard deviation over the seeds",
        heads=(*heads(study), "n", "training error %", "test error %", "training loss"),
        rows=[
            (
                *place(study, one.values),
                _count(one),
                percent(one.train_error),
                percent(one.test_error),
                number(one.train_loss),
            )
            for one in in_order(study)
        ],
    )


def contrast_tables(study: StudyRecord) -> list[Table]:
    """For each axis that has contrasts: what is compared, in every quantity, paired by seed."""
    tables = []
    for axis in study.axes:
        ours = [contrast for contrast in study.contrasts if contrast.axis == axis]
        if ours:
            names = tuple(in_words(study.axes, {**ours[0].others, axis: ours[0].value}))
            head, first = _reference(study, ours[0])
            compared = ", ".join(value for value in axes_in_words(study.axes)[head] if value != first)
            tables.append(
                Table(
                    caption=f"{head}: {compared} minus {first}, paired by seed: mean [95 % interval], bootstrap, p by "
                    "Holm's rule",
                    heads=("quantity", *names, "n", "difference", "bootstrap", "p", ""),
                    rows=[(words, *_row(study, one, name)) for name, (words, *_) in QUANTITIES.items() for one in ours],
                )
            )
    return tables


def gradient_table(study: StudyRecord) -> Table:
    """Growth of the relative gradient from the last block to the first, and the verdict, over the seeds."""
    rows: list[tuple[str, ...]] = []
    for one in in_order(study):
        runs = runs_of(study, one)
        before, after = [run.flow_start for run in runs], [run.flow_end for run in runs]
        rows.append((*place(study, one.values), str(len(runs)), growth(before), growth(after)))
    return Table(
        caption="Growth of ‖∇W‖/‖W‖ from the last block to the first, in orders of magnitude (median), and the verdict",
        heads=(*heads(study), "n", "before training", "after training"),
        rows=rows,
    )


def trace_table(study: StudyRecord) -> Table:
    """The same growth after so many steps, the median over the seeds; no row where no run was traced."""
    steps = sorted({moment.step for run in study.runs for moment in run.record.gradient_trace})
    rows: list[tuple[str, ...]] = []
    for one in in_order(study):
        runs = runs_of(study, one)
        known: dict[int, list[float]] = {}
        for run in runs:
            for moment in run.record.gradient_trace:
                if moment.growth is not None:
                    known.setdefault(moment.step, []).append(moment.growth)
        if known:
            values = (f"{median(known[step]):+.1f}" if step in known else "–" for step in steps)
            rows.append((*place(study, one.values), str(len(runs)), *values))
    return Table(
        caption="Growth of ‖∇W‖/‖W‖ after so many steps of the optimizer, in orders of magnitude (median)",
        heads=(*heads(study), "n", *(f"{step:,}" for step in steps)),
        rows=rows,
    )


def size_table(study: StudyRecord) -> Table:
    """Parameters and multiply-adds; a plain net and its residual counterpart of option A have equal ones."""
    return Table(
        caption="Size of the networks, for one image of this data",
        heads=(*heads(study), "model", "parameters", "multiply-adds"),
        rows=[
            (*place(study, one.values), one.model, f"{one.parameters:,}", f"{one.multiply_adds:,}")
            for one in in_order(study)
        ],
    )


def heading(study: StudyRecord) -> str:
    """The verdicts in one sentence, without their reasons; of other studies how many differences are significant."""
    answers: dict[str, list[str]] = {}
    for verdict in study.verdicts:
        answers.setdefault(verdict.answer, []).append(net_words(verdict))
    if answers:
        found = (HEADINGS[answer].format(" and ".join(nets)) for answer, nets in answers.items())
        return "Training error " + ", ".join(found)
    tested = _tested(study.contrasts)
    if not tested:
        return "No difference in test error could be tested"
    return f"Significant differences in test error: {_significant(tested)} of {len(tested)}"


def answer_lines(study: StudyRecord) -> list[str]:
    """The verdicts with their reasons; of other studies the lowest mean test error, and how many differences are
    significant."""
    lines = verdict_lines(study)
    if lines:
        return lines
    best = min(study.conditions, key=_mean_error, default=None)
    if best and best.test_error:
        names = named(in_words(study.axes, best.values))
        lines.append(f"Lowest mean test error: {percent(best.test_error)} %, n = {best.test_error.n}, with {names}")
    for axis in study.axes:
        ours = [contrast for contrast in study.contrasts if contrast.axis == axis]
        tested = _tested(ours)
        if tested:
            head, first = _reference(study, ours[0])
            count = f"{_significant(tested)} of {len(tested)}"
            lines.append(f"{head}: significant differences in test error from {first}: {count}")
    return lines


def verdict_lines(study: StudyRecord) -> list[str]:
    """One sentence for each verdict: does training error grow with depth?"""
    return [f"{net_words(v)}: training error {ANSWERS[v.answer]}: {v.reason}" for v in study.verdicts]


def net_words(verdict: Verdict) -> str:
    """Which nets a verdict is of: ``plain nets``, ``residual nets (A), options.norm none``."""
    shortcut = verdict.values["shortcut"]
    kind = {"none": "plain nets", "default": "residual nets"}.get(shortcut, f"residual nets ({shortcut})")
    return ", ".join([kind, *(f"{name} {value}" for name, value in verdict.values.items() if name != "shortcut")])


def heads(study: StudyRecord) -> tuple[str, ...]:
    """The axes, as people read them."""
    return tuple(_depth_first(study, in_words(study.axes, study.runs[0].values)))


def place(study: StudyRecord, values: Mapping[str, str]) -> tuple[str, ...]:
    """The values of a condition in the order of ``heads``."""
    return tuple(_depth_first(study, in_words(study.axes, values)).values())


def in_order(study: StudyRecord) -> list[Condition]:
    """The conditions; by depth where a verdict compares depths, so that a plain net stands above its counterpart."""
    return sorted(study.conditions, key=lambda one: int(one.values["depth"])) if study.verdicts else study.conditions


def runs_of(study: StudyRecord, condition: Condition) -> list[StudyRun]:
    """The runs of that condition."""
    return [run for run in study.runs if run.values == condition.values]


def growth(flows: Sequence[Flow]) -> str:
    """The median growth, and each verdict that a run of these had."""
    known = [flow.growth for flow in flows if flow.growth is not None]
    verdicts = ", ".join(dict.fromkeys(flow.verdict for flow in flows))
    return f"{median(known):+.1f} {verdicts}" if known else verdicts


def named(values: Mapping[str, str]) -> str:
    """A condition in one line: ``kind plain, depth 8``."""
    return ", ".join(f"{axis} {value}" for axis, value in values.items())


def _depth_first(study: StudyRecord, words: dict[str, str]) -> dict[str, str]:
    return {"depth": words["depth"]} | words if study.verdicts else words


def _reference(study: StudyRecord, contrast: Contrast) -> tuple[str, str]:
    """The axis and the value that others are compared with, as people read them."""
    ((head, first),) = in_words(study.axes, {contrast.axis: contrast.first}).items()
    return head, first


def _row(study: StudyRecord, contrast: Contrast, name: str) -> tuple[str, ...]:
    """The other axes' values and this one's, n, both intervals, p, and what that means."""
    words = in_words(study.axes, {**contrast.others, contrast.axis: contrast.value})
    return (*words.values(), *_difference(getattr(contrast, name), *QUANTITIES[name][1:]))


def _difference(found: Difference | None, factor: int, digits: int) -> tuple[str, ...]:
    if found is None:
        return "0", "no seed finished both", "–", "–", ""
    n, student = str(found.student.n), interval(found.student, factor, digits)
    if found.bootstrap.low is None or found.bootstrap.high is None:
        return n, student, "–", "–", ""
    low, high = (plain(factor * bound, digits, "+") for bound in (found.bootstrap.low, found.bootstrap.high))
    if found.adjusted is None:
        return n, student, f"[{low}, {high}]", "–", "not tested: the same in every seed"
    p = "< 0.001" if found.adjusted < 0.001 else f"{found.adjusted:.3f}"
    return n, student, f"[{low}, {high}]", p, "significant" if found.significant else "not significant"


def _tested(contrasts: Sequence[Contrast]) -> list[Difference]:
    return [found for contrast in contrasts if (found := contrast.test_error) and found.adjusted is not None]


def _significant(differences: Sequence[Difference]) -> str:
    return str(sum(found.significant for found in differences) or "none")


def _mean_error(condition: Condition) -> float:
    return condition.test_error.mean if condition.test_error else inf


def _count(condition: Condition) -> str:
    finished = condition.train_error.n if condition.train_error else 0
    return f"{finished} ({condition.diverged} diverged)" if condition.diverged else str(finished)
