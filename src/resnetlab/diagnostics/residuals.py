"""Do residual branches refine what passes, or rewrite it? A verdict from recorded readings, by printed thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from resnetlab.records.diagnosis import BlockReading

REFINING, IDLE, DEAD = 0.5, 0.02, 0.1

RULE = (
    "The median of ‖F(x)‖/‖S(x)‖ over the blocks: below "
    f"{REFINING:g} the blocks are refining what passes, from there on rewriting it; 0 in every block: silent; no "
    f"finite number: broken; without shortcuts: plain. A block below {IDLE:g} is idle. Channels that are zero in every "
    f"image of the batch are dead; {DEAD:.0%} of them or more, on average over the blocks, are worth a word."
)

ResidualVerdict = Literal["refining", "rewriting", "silent", "broken", "plain"]


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """Medians and counts over the blocks of a net. None where a number is not finite, or there is no such thing.

    ``response`` is the mean of the blocks' last responses, ``share`` the median part of ∂L/∂x that arrives through the
    shortcut, ‖through S‖ / (‖through S‖ + ‖through F‖).
    """

    verdict: ResidualVerdict
    ratio: float | None
    idle: list[str]
    cosine: float | None
    dead: float | None
    response: float | None
    share: float | None


def summarise(blocks: Sequence[BlockReading]) -> Residuals:
    """Numbers and verdict by ``RULE``."""
    ratios = [block.ratio for block in blocks]
    known = [ratio for ratio in ratios if ratio is not None]
    whole = len(known) == len(ratios)
    plain = all(block.shortcut_norm is None for block in blocks)
    return Residuals(
        verdict=_verdict(known, plain) if whole or plain else "broken",
        ratio=median(known) if known and whole else None,
        idle=[block.block for block in blocks if block.ratio is not None and block.ratio < IDLE],
        cosine=_middle([block.cosine for block in blocks]),
        dead=_mean([block.dead for block in blocks]),
        response=_mean([block.responses[-1] if block.responses else None for block in blocks]),
        share=_middle([shortcut_share(block) for block in blocks]),
    )


def shortcut_share(block: BlockReading) -> float | None:
    """The part of ∂L/∂x that arrives through the shortcut; None without one, or where a norm is not finite."""
    through, beside = block.gradient_shortcut, block.gradient_branch
    if through is None or beside is None or not through + beside:
        return None
    return through / (through + beside)


def _verdict(ratios: Sequence[float], plain: bool) -> ResidualVerdict:
    if plain:
        return "plain"
    if not any(ratios):
        return "silent"
    return "refining" if median(ratios) < REFINING else "rewriting"


def _middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
