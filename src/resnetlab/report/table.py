"""The tables of a study as rows of text, for the terminal and for the page alike."""

from dataclasses import dataclass
from statistics import median

from resnetlab.core.stats import Interval, Sample
from resnetlab.records.gradients import Flow
from resnetlab.records.study import Cell, StudyRecord


@dataclass(frozen=True, kw_only=True)
class Table:
    """A caption, the heads of the columns, and rows of as many texts."""

    caption: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]


def error_table(study: StudyRecord) -> Table:
    """Training and test error of every net after the last epoch."""
    return Table(
        caption="After the last epoch, in eval mode: mean ± standard deviation over the seeds",
        heads=("depth", "kind", "n", "training error %", "test error %", "training loss"),
        rows=[
            (
                str(cell.depth),
                cell.kind,
                _count(cell),
                percent(cell.train_error),
                percent(cell.test_error),
                number(cell.train_loss),
            )
            for cell in by_depth(study)
        ],
    )


def pair_table(study: StudyRecord) -> Table:
    """Plain minus residual at every depth, paired by seed."""
    return Table(
        caption="Plain minus residual, paired by seed: mean [95 % interval]; * where it excludes 0",
        heads=("depth", "n", "training error, points", "test error, points", "training loss"),
        rows=[
            (
                str(pair.depth),
                str(pair.train_error.n),
                interval(pair.train_error, 100, 2),
                interval(pair.test_error, 100, 2),
                interval(pair.train_loss, 1, 3),
            )
            for pair in study.pairs
        ],
    )


def gradient_table(study: StudyRecord) -> Table:
    """Growth of the relative gradient from the last block to the first, and the verdict, over the seeds."""
    rows: list[tuple[str, ...]] = []
    for cell in by_depth(study):
        runs = [run for run in study.runs if (run.kind, run.depth) == (cell.kind, cell.depth)]
        before, after = [run.flow_start for run in runs], [run.flow_end for run in runs]
        rows.append((str(cell.depth), cell.kind, str(len(runs)), growth(before), growth(after)))
    return Table(
        caption="Growth of ‖∇W‖/‖W‖ from the last block to the first, in orders of magnitude (median), and the verdict",
        heads=("depth", "kind", "n", "before training", "after training"),
        rows=rows,
    )


def trace_table(study: StudyRecord) -> Table:
    """The same growth after so many steps, the median over the seeds; no row where no run was traced."""
    steps = sorted({moment.step for run in study.runs for moment in run.record.gradient_trace})
    rows: list[tuple[str, ...]] = []
    for cell in by_depth(study):
        runs = [run for run in study.runs if (run.kind, run.depth) == (cell.kind, cell.depth)]
        known: dict[int, list[float]] = {}
        for run in runs:
            for moment in run.record.gradient_trace:
                if moment.growth is not None:
                    known.setdefault(moment.step, []).append(moment.growth)
        if known:
            values = (f"{median(known[step]):+.1f}" if step in known else "–" for step in steps)
            rows.append((str(cell.depth), cell.kind, str(len(runs)), *values))
    return Table(
        caption="Growth of ‖∇W‖/‖W‖ after so many steps of the optimizer, in orders of magnitude (median)",
        heads=("depth", "kind", "n", *(f"{step:,}" for step in steps)),
        rows=rows,
    )


def size_table(study: StudyRecord) -> Table:
    """Parameters and multiply-adds; a plain net and its twin of option A have equal ones."""
    return Table(
        caption="Size of the networks, for one image of this data",
        heads=("depth", "kind", "model", "parameters", "multiply-adds"),
        rows=[
            (str(cell.depth), cell.kind, cell.model, f"{cell.parameters:,}", f"{cell.multiply_adds:,}")
            for cell in by_depth(study)
        ],
    )


def by_depth(study: StudyRecord) -> list[Cell]:
    """The cells in the order of depth, so that a plain net stands above its residual twin."""
    return sorted(study.cells, key=lambda cell: cell.depth)


def verdict_lines(study: StudyRecord) -> list[str]:
    """One sentence for each kind: does training error grow with depth?"""
    answers = {"grows": "grows with depth", "does not grow": "does not grow with depth", "undecided": "– undecided"}
    return [f"{v.kind} nets: training error {answers[v.answer]}: {v.reason}" for v in study.verdicts]


def study_heading(study: StudyRecord) -> str:
    """The verdicts in one sentence, without their reasons."""
    words = {
        "grows": "grows with depth in {} nets",
        "does not grow": "does not grow with depth in {} nets",
        "undecided": "may grow with depth in {} nets: undecided",
    }
    kinds: dict[str, list[str]] = {}
    for verdict in study.verdicts:
        kinds.setdefault(verdict.answer, []).append(verdict.kind)
    if not kinds:
        return "Not answered yet"
    return "Training error " + ", ".join(words[answer].format(" and ".join(names)) for answer, names in kinds.items())


def percent(values: Sample | None) -> str:
    """A fraction as percent with its standard deviation."""
    if values is None:
        return "diverged"
    return f"{100 * values.mean:.2f}" + ("" if values.sd is None else f" ± {100 * values.sd:.2f}")


def number(values: Sample | None) -> str:
    """A loss with its standard deviation."""
    if values is None:
        return "diverged"
    return plain(values.mean, 4) + ("" if values.sd is None else f" ± {plain(values.sd, 4)}")


def interval(values: Interval, factor: float, digits: int) -> str:
    """``mean [low, high]`` with signs, and a star where zero lies outside."""
    mean = plain(factor * values.mean, digits, "+")
    if values.low is None or values.high is None:
        return f"{mean} [no interval: one seed]"
    star = " *" if values.excludes_zero else ""
    low, high = (plain(factor * bound, digits, "+") for bound in (values.low, values.high))
    return f"{mean} [{low}, {high}]{star}"


def plain(value: float, digits: int, sign: str = "-") -> str:
    """The value with so many decimals; in powers of ten where a net that barely trained has a loss of millions."""
    return f"{value:{sign}.{digits}f}" if abs(value) < 1e5 else f"{value:{sign}.1e}"


def growth(flows: list[Flow]) -> str:
    """The median growth, and each verdict that a run of these had."""
    known = [flow.growth for flow in flows if flow.growth is not None]
    verdicts = ", ".join(dict.fromkeys(flow.verdict for flow in flows))
    return f"{median(known):+.1f} {verdicts}" if known else verdicts


def _count(cell: Cell) -> str:
    finished = cell.train_error.n if cell.train_error else 0
    return f"{finished} ({cell.diverged} diverged)" if cell.diverged else str(finished)
