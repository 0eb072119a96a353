"""The tables of a study over axes as rows of text, for the terminal and for the page alike."""

from collections.abc import Sequence
from math import inf

from resnetlab.records.study import Combination, Comparison, Contrast, Difference
from resnetlab.report.table import Table, interval, number, percent


def combination_table(study: Comparison) -> Table:
    """Training and test error of every combination after the last epoch."""
    rows: list[tuple[str, ...]] = []
    for cell in study.combinations:
        finished = cell.test_error.n if cell.test_error else 0
        n = f"{finished} ({cell.diverged} diverged)" if cell.diverged else str(finished)
        figures = percent(cell.train_error), percent(cell.test_error), number(cell.train_loss)
        rows.append((*cell.values.values(), n, *figures))
    return Table(
        caption="After the last epoch, in eval mode: mean ± standard deviation over the seeds",
        heads=(*study.axes, "n", "training error %", "test error %", "training loss"),
        rows=rows,
    )


def contrast_tables(study: Comparison) -> list[Table]:
    """For each axis with more than one value: every value minus the first, paired by seed."""
    tables = []
    for axis, values in study.axes.items():
        ours = [contrast for contrast in study.contrasts if contrast.axis == axis]
        if ours:
            others = [name for name in study.axes if name != axis]
            tables.append(
                Table(
                    caption=f"{axis}: minus {values[0]}, paired by seed, in points: mean [95 % interval], p by Holm's "
                    "rule",
                    heads=(*others, axis, "n", "training error", "test error", "bootstrap of test error"),
                    rows=[_row(contrast) for contrast in ours],
                )
            )
    return tables


def size_table(study: Comparison) -> Table:
    """Parameters and multiply-adds of every combination."""
    return Table(
        caption="Size of the networks, for one image of this data",
        heads=(*study.axes, "model", "parameters", "multiply-adds"),
        rows=[
            (*cell.values.values(), cell.model, f"{cell.parameters:,}", f"{cell.multiply_adds:,}")
            for cell in study.combinations
        ],
    )


def comparison_heading(study: Comparison) -> str:
    """How many of the differences in test error are significant, of those that could be tested."""
    tested = _tested(study.contrasts)
    if not tested:
        return "No difference in test error could be tested"
    significant = sum(found.significant for found in tested)
    return f"Significant differences in test error: {significant or 'none'} of {len(tested)}"


def answer_lines(study: Comparison) -> list[str]:
    """The combination of the lowest mean test error, and of every axis how many differences are significant."""
    lines = []
    best = min((cell for cell in study.combinations if cell.test_error), key=_mean_error, default=None)
    if best and best.test_error:
        names = ", ".join(f"{axis} {value}" for axis, value in best.values.items())
        lines.append(f"Lowest mean test error: {percent(best.test_error)} %, n = {best.test_error.n}, with {names}")
    for axis, values in study.axes.items():
        tested = _tested([contrast for contrast in study.contrasts if contrast.axis == axis])
        if tested:
            significant = sum(found.significant for found in tested)
            lines.append(f"{axis}, significant differences from {values[0]}: {significant or 'none'} of {len(tested)}")
    return lines


def _tested(contrasts: Sequence[Contrast]) -> list[Difference]:
    return [found for contrast in contrasts if (found := contrast.test_error) and found.adjusted is not None]


def _mean_error(cell: Combination) -> float:
    return cell.test_error.mean if cell.test_error else inf


def _row(contrast: Contrast) -> tuple[str, ...]:
    test = contrast.test_error
    return (
        *contrast.others.values(),
        contrast.value,
        str(test.student.n if test else 0),
        difference(contrast.train_error),
        difference(test),
        bootstrap(test),
    )


def difference(found: Difference | None) -> str:
    """``mean [low, high], p, significant`` or ``not significant``, in points."""
    if found is None:
        return "no seed finished both"
    text = interval(found.student, 100, 2).removesuffix(" *")
    if found.adjusted is None:
        return text if found.student.low is None else f"{text} not tested: the same in every seed"
    p = "p < 0.001" if found.adjusted < 0.001 else f"p = {found.adjusted:.3f}"
    return f"{text} {p}, {'significant' if found.significant else 'not significant'}"


def bootstrap(found: Difference | None) -> str:
    """``[low, high]`` in points."""
    if found is None or found.bootstrap.low is None or found.bootstrap.high is None:
        return "–"
    return f"[{100 * found.bootstrap.low:+.2f}, {100 * found.bootstrap.high:+.2f}]"
