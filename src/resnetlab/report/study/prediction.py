"""Which measure foretells that a run does not train, as tables."""

from resnetlab.records.prediction import HeldOutDepth, PredictionRecord, Predictor
from resnetlab.report.table import Table, short


def predictor_table(found: PredictionRecord) -> Table:
    """Every measure with its AUC, the interval, and the balanced accuracy on depths held out."""
    return Table(
        caption=f"What foretells failure: {found.failed} of {found.runs} runs of {found.conditions} conditions did not "
        "train",
        heads=("measure", "n", "failed", "without it", "AUC [95 %]", "held out: balanced accuracy"),
        rows=[
            (one.measure, str(one.n), str(one.failed), str(one.missing), _area(one), _decimals(one.balanced))
            for one in found.predictors
        ],
    )


def depth_table(found: PredictionRecord) -> Table:
    """Every measure on every depth that was held out, by what the other depths chose."""
    return Table(
        caption="Held out, depth by depth: direction and threshold chosen on the other depths",
        heads=("measure", "depth", "n", "failed", "fails where", "foretold", "spared", "AUC"),
        rows=[(one.measure, *_depth(depth)) for one in found.predictors for depth in one.depths],
    )


def _depth(one: HeldOutDepth) -> tuple[str, ...]:
    if one.higher is None:
        return str(one.depth), str(one.n), str(one.failed), "–", "–", "–", "–"
    where = f"{'above' if one.higher else 'below'} {short(one.threshold)}"
    spared = f"{one.spared} of {one.n - one.failed}"
    counts = f"{one.caught} of {one.failed}", spared
    return str(one.depth), str(one.n), str(one.failed), where, *counts, _decimals(one.auc)


def _area(one: Predictor) -> str:
    if one.auc is None:
        return "–"
    return f"{one.auc:.3f}" + ("" if one.low is None or one.high is None else f" [{one.low:.3f}, {one.high:.3f}]")


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
