"""Which runs of a study trained: the errors of deep nets are often of two kinds, and their mean is then that of a coin.

Where a run trains or does not, the mean over three seeds says how many did, and Student's interval of it covers the
true one far too seldom (docs/studies.md). So the runs that trained are counted beside every mean.
"""

from collections.abc import Sequence

from resnetlab.core.stats import ROUNDING, Share, exact_share, sign_p
from resnetlab.records.run import RunRecord
from resnetlab.records.study import PairedCounts, StudyRun

LEVEL = 0.95
NEAR = 0.10
"""How far above the lowest training error of the study a run that trained may be."""
LEARNED = 0.1
"""Share of the way from guessing to no error below which a net is untrained."""

RULE = (
    f"A run trained if its training error after the last epoch is less than {100 * NEAR:g} points above the lowest of "
    "the study, or less than half of the way from there to guessing where that is nearer; one that diverged did not. "
    f"The {LEVEL:.0%} intervals of such counts are Clopper and Pearson's. A comparison is bimodal where of the runs of "
    "one of its conditions some trained and others did not: its mean then hangs on how many did, and Student's "
    f"interval of it is too narrow. A net is untrained where none of its runs came {LEARNED:.0%} of the way from "
    "guessing to no error; guessing is always predicting the most frequent class."
)


class Outcomes:
    """Which runs trained. ``below`` is the training error that counts, None where no run finished."""

    def __init__(self, runs: Sequence[StudyRun]) -> None:
        self.runs = runs
        records = [run.record for run in runs if run.record.final]
        best = min(records, key=train_error, default=None)
        self.below = None if best is None else train_error(best) + _room(best)

    def trained(self, values: dict[str, str]) -> dict[int, bool]:
        """By seed whether the run of that condition trained; for all that ended, whether they diverged or not."""
        return {run.seed: self._has_trained(run.record) for run in self.runs if run.values == values}

    def share(self, values: dict[str, str]) -> Share | None:
        """How many runs of the condition trained; None where no run of the study finished."""
        found = self.trained(values)
        return None if self.below is None else exact_share(sum(found.values()), len(found), LEVEL)

    def is_mixed(self, *conditions: dict[str, str]) -> bool:
        """Whether of the runs of one of the conditions some trained and others did not."""
        return any(len(set(self.trained(values).values())) == 2 for values in conditions)

    def are_untrained(self, *conditions: dict[str, str]) -> bool:
        """Whether every run of these conditions that finished is hardly better than guessing, and each has one."""
        finished = [[r.record for r in self.runs if r.values == values and r.record.final] for values in conditions]
        return all(records and all(map(is_untrained, records)) for records in finished)

    def compare(self, left: dict[str, str], right: dict[str, str]) -> PairedCounts | None:
        """The seeds for which the run of ``left`` trained and that of ``right`` did not, and the other way round."""
        ours, theirs = self.trained(left), self.trained(right)
        seeds = ours.keys() & theirs.keys()
        if self.below is None or not seeds:
            return None
        return count_pairs([ours[seed] - theirs[seed] for seed in seeds])

    def _has_trained(self, record: RunRecord) -> bool:
        return self.below is not None and record.final is not None and train_error(record) < self.below


def train_error(record: RunRecord) -> float:
    """Training error of a run that finished, after its last epoch."""
    assert record.final is not None
    return record.final.trained.error


def guessing(record: RunRecord) -> float | None:
    """Training error of always predicting the most frequent class; None where the record does not count the classes."""
    counts = record.data.get("train_counts")
    return 1 - max(counts) / sum(counts) if counts and sum(counts) else None


def is_untrained(record: RunRecord) -> bool:
    """Whether a run that finished is hardly better than guessing."""
    chance = guessing(record)
    return chance is not None and train_error(record) > (1 - LEARNED) * chance


def count_pairs(differences: Sequence[float], margin: float = 0.0) -> PairedCounts:
    """How many paired differences are above the margin and how many below its negative, with the exact test."""
    edge = margin * (1 + ROUNDING)
    more, less = sum(d > edge for d in differences), sum(d < -edge for d in differences)
    return PairedCounts(n=len(differences), more=more, less=less, p=sign_p(more, less))


def _room(best: RunRecord) -> float:
    """How far above the best run of the study others may be: nothing where that is untrained itself."""
    chance = guessing(best)
    if chance is None:
        return NEAR
    return 0.0 if is_untrained(best) else min(NEAR, (chance - train_error(best)) / 2)
