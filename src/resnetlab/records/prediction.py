"""Which measure of a run foretells that it does not train, as a record over the runs of one study or several."""

from dataclasses import dataclass
from typing import Literal

from resnetlab.core.stats import RESAMPLES

RULE = (
    "A run fails that did not train by the rule of its study. The AUC is the share of pairs of a run that failed and "
    "one that trained in which the measure is higher for the one that failed, ties half (Mann and Whitney's U over "
    "n₁n₀): 1 and 0 separate them, 0.5 is chance. Runs without a finite value are left out and counted. Its 95% "
    f"interval is the percentile bootstrap's over conditions ({RESAMPLES:,} resamples), for the seeds of a condition "
    "are no separate evidence; there is none where all resamples agree. Held out: for each depth, whether high or low "
    "values mean failure and the threshold of the best balanced accuracy are chosen on all other depths, and every run "
    "of the depth is then judged by them; the balanced accuracy is that of all these judgements together, 0.5 is "
    "chance."
)


@dataclass(frozen=True, kw_only=True)
class HeldOutDepth:
    """What a measure foretells of the runs of one ``depth``, by a threshold that was chosen on the other depths.

    A run is foretold to fail if its value is ``higher`` (or else lower) than ``threshold``; both are None where the
    other depths have outcomes of one kind only. ``caught`` of ``failed`` runs and ``spared`` of the ``n - failed``
    others were judged rightly. ``auc`` is in the direction chosen, None where the depth has outcomes of one kind.
    """

    depth: int
    n: int
    failed: int
    higher: bool | None = None
    threshold: float | None = None
    caught: int = 0
    spared: int = 0
    auc: float | None = None


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """One measure: ``n`` runs have it, of which ``failed`` did; ``missing`` have not.

    ``auc`` is None where all runs that have the measure ended in one way. ``balanced`` is the balanced accuracy over
    the ``depths`` held out, None where none can be judged, or their outcomes are of one kind.
    """

    measure: str
    n: int
    failed: int
    missing: int
    auc: float | None
    low: float | None
    high: float | None
    balanced: float | None
    depths: list[HeldOutDepth]


@dataclass(frozen=True, kw_only=True)
class PredictionRecord:
    """Every measure over the runs of the ``studies``, by their commands. ``RULE`` says how it is made."""

    studies: list[str]
    runs: int
    failed: int
    conditions: int
    predictors: list[Predictor]
    rule: str
    format: Literal[1] = 1
