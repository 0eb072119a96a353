"""What a tuned study tried and chose, as a table and sentences, for the terminal and for the page alike."""

from resnetlab.records.study import StudyRecord, TriedValue, TunedCondition, Tuning, in_words
from resnetlab.report.study.tables import heads, in_order, named, place
from resnetlab.report.table import Table

DIRECTIONS = {"lowest": "downwards", "highest": "upwards"}


def tuning_table(study: StudyRecord) -> Table | None:
    """For each condition the value chosen, the band of values that train, and what each value gave; None without
    tuning."""
    tuning = study.tuning
    if tuning is None:
        return None
    return Table(
        caption=f"Tuning of {tuning.name}, by {len(tuning.seeds)} seeds that do not judge: mean training error % at "
        "each value (how many of its runs trained); band: the values around the chosen one at which all trained",
        heads=(*heads(study), "value chosen", "band", "decades", *tuning.grid),
        rows=[
            (*place(study, one.values), one.chosen, *_band(one), *map(_tried, one.tried))
            for one in _ordered(study, tuning)
        ],
    )


def edge_lines(study: StudyRecord) -> list[str]:
    """A sentence for each condition whose best value is the first or last one tried."""
    tuning = study.tuning
    if tuning is None:
        return []
    return [
        f"{named(in_words(study.axes, one.values))}: the best {tuning.name}, {one.chosen}, is the {one.edge} value "
        f"tried, and a better one may lie beyond it; widen --tune {DIRECTIONS[one.edge]} in a new folder"
        for one in _ordered(study, tuning)
        if one.edge
    ]


def _ordered(study: StudyRecord, tuning: Tuning) -> list[TunedCondition]:
    """Those that have a judged run, in the order of the other tables."""
    by_place = {tuple(one.values.values()): one for one in tuning.conditions}
    return [by_place[tuple(condition.values.values())] for condition in in_order(study)]


def _band(one: TunedCondition) -> tuple[str, str]:
    """The ends of the band and its width; ≤ and ≥ where it reaches an end of what was tried."""
    band = one.band
    if band is None:
        return "none: not all trained", "–"
    low, high = "≤ " * band.open_below + band.low, "≥ " * band.open_above + band.high
    return f"{low} to {high}", f"{'≥ ' if band.open_below or band.open_above else ''}{band.decades:.1f}"


def _tried(one: TriedValue) -> str:
    diverged = f", {one.diverged} diverged" if one.diverged else ""
    return f"{100 * one.train_error:.2f} ({one.trained}/{one.n}{diverged})"
