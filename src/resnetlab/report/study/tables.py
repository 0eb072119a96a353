"""The tables of a study and its answers as text, for the terminal and for the page alike."""

from collections.abc import Mapping, Sequence
from math import inf
from statistics import median

from resnetlab.records.gradients import Flow
from resnetlab.records.study import (
    LEAST_SEEDS,
    Condition,
    Contrast,
    Difference,
    PairedCounts,
    StudyRecord,
    StudyRun,
    Verdict,
    axes_in_words,
    in_words,
)
from resnetlab.report.table import Table, bounds, counted, interval, number, p_value, percent

ALPHA = 0.05
"""What p by Holm's rule must be below."""
QUANTITIES = {
    "train_error": ("training error, points", 100, 2),
    "test_error": ("test error, points", 100, 2),
    "train_loss": ("training loss", 1, 3),
}
"""What is compared: its name in the record, and in a table with its factor and decimals."""
ANSWERS = {
    "grows": "grows with depth",
    "does not grow": "does not grow with depth",
    "undecided": "– undecided",
    "untrained": "– untrained",
}
HEADINGS = {
    "grows": "grows with depth in {}",
    "does not grow": "does not grow with depth in {}, as far as {n} seeds tell",
    "undecided": "may grow with depth in {}: undecided",
    "untrained": "says nothing in {}: untrained",
}


def error_table(study: StudyRecord) -> Table:
    """The runs of every condition that trained, and their training and test error after the last epoch."""
    counts = study.trained_below is not None
    said = "After the last epoch, in eval mode: mean ± standard deviation over n seeds"
    if study.trained_below is not None:
        said += f"; trained: below {100 * study.trained_below:.2f} % training error [exact 95 %]"
    return Table(
        caption=said,
        heads=(
            *heads(study),
            *([study.tuning.name] if study.tuning else []),
            "n",
            *(["trained"] if counts else []),
            "training error %",
            "test error %",
            "training loss",
        ),
        rows=[
            (
                *place(study, one.values),
                *([chosen_value(study, one.values)] if study.tuning else []),
                _count(one),
                *([counted(one.trained)] if counts else []),
                percent(one.train_error),
                percent(one.test_error),
                number(one.train_loss),
            )
            for one in in_order(study)
        ],
    )


def contrast_tables(study: StudyRecord) -> list[Table]:
    """For each axis that has contrasts: what is compared, in the counts of runs that trained and in every quantity,
    paired by seed."""
    tables = []
    for axis in study.axes:
        ours = [contrast for contrast in study.contrasts if contrast.axis == axis]
        if ours:
            names = tuple(in_words(study.axes, {**ours[0].others, axis: ours[0].value}))
            head, first = _reference(study, ours[0])
            compared = ", ".join(value for value in axes_in_words(study.axes)[head] if value != first)
            counts = [("runs that trained", *_words(study, one), *_trained(one)) for one in ours if one.trained]
            tables.append(
                Table(
                    caption=f"{head}: {compared} minus {first}, paired over n seeds: mean [Student's 95 %], BCa 95 %, "
                    f"p of t-test{' or McNemar' if counts else ''} by Holm's rule over {len(study.contrasts)}",
                    heads=("quantity", *names, "n", "difference", "bootstrap", "p", ""),
                    rows=[
                        *counts,
                        *((words, *_row(study, one, name)) for name, (words, *_) in QUANTITIES.items() for one in ours),
                    ],
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
        caption="Growth of ‖∇W‖/‖W‖ from the last block to the first, in orders of magnitude (median over n seeds), "
        "and the verdict",
        heads=(*heads(study), "n", "before training", "after training"),
        rows=rows,
    )


TRACED = {
    "growth": ("Growth of ‖∇W‖/‖W‖ after so many steps of the optimizer, in orders of magnitude", "{:+.1f}"),
    "correlation": (
        "Cosine between gradients of neighbouring images at the first block, after so many steps",
        "{:.2f}",
    ),
    "agreement": ("Cosine between the gradients of two halves of a batch, after so many steps", "{:.2f}"),
    "largest_change": ("‖ΔW‖/‖W‖ of the block that moved most in that step", "{:.1g}"),
    "rank": ("Effective rank of the last block's output, after so many steps", "{:.1f}"),
}
"""What a trace shows over the steps: a field of ``GradientMoment``, what it is, and how it is written."""


def trace_tables(study: StudyRecord) -> list[Table]:
    """Every quantity of ``TRACED`` that runs of the study have, over the steps."""
    tables = [trace_table(study, name) for name in TRACED]
    return [table for table in tables if table.rows]


def trace_table(study: StudyRecord, name: str = "growth") -> Table:
    """A quantity of ``TRACED`` after so many steps, the median over the seeds; no row where no run has it."""
    steps = sorted({moment.step for run in study.runs for moment in run.record.gradient_trace})
    caption, form = TRACED[name]
    rows: list[tuple[str, ...]] = []
    for one in in_order(study):
        runs = runs_of(study, one)
        known: dict[int, list[float]] = {}
        for run in runs:
            for moment in run.record.gradient_trace:
                value = getattr(moment, name)
                if value is not None:
                    known.setdefault(moment.step, []).append(value)
        if known:
            values = (form.format(median(known[step])) if step in known else "–" for step in steps)
            rows.append((*place(study, one.values), str(len(runs)), *values))
    return Table(
        caption=f"{caption} (median over n seeds)",
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
    answers: dict[str, list[Verdict]] = {}
    for verdict in study.verdicts:
        answers.setdefault(verdict.answer, []).append(verdict)
    if answers:
        found = []
        for answer, verdicts in answers.items():
            seeds = min((step.train_error.n for verdict in verdicts for step in verdict.steps), default=0)
            found.append(HEADINGS[answer].format(" and ".join(map(net_words, verdicts)), n=seeds))
        return "Training error " + ", ".join(found)
    tested = _tested(study.contrasts)
    if study.conditions and all(condition.untrained for condition in study.conditions):
        return "No condition trained: every net is hardly better than guessing"
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


NET_WORDS = {
    "none": "plain nets",
    "default": "residual nets",
    "scaled": "residual nets (constant scaling)",
    "gated": "residual nets (shortcut-only gate)",
    "highway": "highway nets",
    "dropout": "residual nets (dropout on the shortcut)",
}


def net_words(verdict: Verdict) -> str:
    """Which nets a verdict is of: ``plain nets``, ``residual nets (A), options.norm none``, ``highway nets``."""
    shortcut = verdict.values["shortcut"]
    kind = NET_WORDS.get(shortcut, f"residual nets ({shortcut})")
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


def chosen_value(study: StudyRecord, values: Mapping[str, str]) -> str:
    """The value of what was tuned at which that condition is judged."""
    assert study.tuning is not None
    return next(one.chosen for one in study.tuning.conditions if one.values == values)


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


def _words(study: StudyRecord, contrast: Contrast) -> tuple[str, ...]:
    """The other axes' values and this one's."""
    return tuple(in_words(study.axes, {**contrast.others, contrast.axis: contrast.value}).values())


def _row(study: StudyRecord, contrast: Contrast, name: str) -> tuple[str, ...]:
    """The other axes' values and this one's, n, both intervals, p, and what that means."""
    found: Difference | None = getattr(contrast, name)
    if found is None:
        return (*_words(study, contrast), "0", "no seed finished both", "–", "–", "")
    factor, digits = QUANTITIES[name][1:]
    p = "–" if found.adjusted is None else p_value(found.adjusted)
    meaning = "both untrained" if contrast.untrained else judgement(found)
    shown = (interval(found.student, factor, digits), bounds(found.bootstrap, factor, digits))
    return (*_words(study, contrast), str(found.student.n), *shown, p, meaning)


def _trained(contrast: Contrast) -> tuple[str, ...]:
    """n, in how many seeds only one of both trained, and McNemar's p."""
    found = contrast.trained
    assert found is not None
    p = "–" if found.adjusted is None else p_value(found.adjusted)
    meaning = "both untrained" if contrast.untrained else _decided(found)
    return (
        str(found.n),
        f"{found.more - found.less:+d} ({found.more} only here, {found.less} only there)",
        "–",
        p,
        meaning,
    )


def judgement(found: Difference) -> str:
    """Whether a difference is significant, or why it was not tested; by which test where that is not the usual one."""
    if found.student.n < LEAST_SEEDS:
        return f"not tested: fewer than {LEAST_SEEDS} seeds"
    significant = "significant" if found.significant else "not significant"
    counts = found.counts
    if counts is None or counts.adjusted is None or not (found.adjusted is None or found.bimodal):
        return "not tested: the same in every seed" if found.adjusted is None else significant
    return f"{significant}{'; bimodal' if found.bimodal else ''}: sign test p {p_value(counts.adjusted)}"


def _decided(counts: PairedCounts) -> str:
    """What McNemar's test says; with five seeds its p is 0.0625 at least, and says nothing."""
    if 2.0 ** (1 - counts.n) >= ALPHA:
        return "too few seeds to tell"
    return "significant" if counts.adjusted is not None and counts.adjusted < ALPHA else "not significant"


def _tested(contrasts: Sequence[Contrast]) -> list[Difference]:
    return [
        found
        for contrast in contrasts
        if (found := contrast.test_error) and found.student.n >= LEAST_SEEDS and not contrast.untrained
    ]


def _significant(differences: Sequence[Difference]) -> str:
    return str(sum(found.significant for found in differences) or "none")


def _mean_error(condition: Condition) -> float:
    return condition.test_error.mean if condition.test_error else inf


def _count(condition: Condition) -> str:
    finished = condition.train_error.n if condition.train_error else 0
    notes = [f"{condition.diverged} diverged"] if condition.diverged else []
    notes += ["untrained"] if condition.untrained else []
    return f"{finished} ({', '.join(notes)})" if notes else str(finished)
