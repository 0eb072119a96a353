"""Do residual branches refine what passes, or rewrite it? What they add, and what is dead in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from resnetlab.diagnostics.context import Context
from resnetlab.diagnostics.load import INITIAL, DiagnosedNet
from resnetlab.diagnostics.probes import measure_blocks
from resnetlab.diagnostics.sentences import BROKEN, some
from resnetlab.records.diagnosis import BlockStatistics, Diagnosis, Finding, NetResult

COMPARED = ("initial", "plain")

REFINING, IDLE, DEAD = 0.5, 0.02, 0.1

RULE = (
    "The median of ‖F(x)‖/‖S(x)‖ over the blocks: below "
    f"{REFINING:g} the blocks are refining their input, from there on rewriting it; 0 in every block: silent; no "
    f"finite number: broken; without shortcuts: plain. A block below {IDLE:g} is idle. Channels that are zero in every "
    f"image of the batch are dead; {DEAD:.0%} of them or more, on average over the blocks, are reported."
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


def applies(net: DiagnosedNet, _context: Context) -> str | None:
    """Blocks are needed."""
    return None if net.blocks else "it has no blocks"


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """The statistics of every block for the batch."""
    return measure_blocks(net, context, result)


def judge(blocks: Sequence[BlockStatistics]) -> ResidualVerdict:
    """The verdict by ``RULE``."""
    return summarise(blocks).verdict


def explain(diagnosis: Diagnosis) -> Finding:
    """What the branches add to what passes, how near each block is to the identity, and what is dead."""
    nets = [one for one in (diagnosis.net, diagnosis.initial, diagnosis.plain) if one and one.blocks]
    found = summarise(diagnosis.net.blocks)
    advice = []
    if found.idle and found.verdict != "silent":
        advice.append(
            f"{some(found.idle)} change next to nothing: lesion shows whether the net does as well without them."
        )
    if found.dead is not None and found.dead >= DEAD:
        advice.append(
            f"{found.dead:.0%} of the channels are dead for this batch: a lower rate, a warm-up or leaky_relu may keep "
            "them alive; the width that they take is not used."
        )
    if found.verdict == "broken":
        advice.append(BROKEN)
    sentences = [*map(_sentence, nets), *_figure_seven(nets)]
    return Finding(analysis="residuals", verdict=found.verdict, sentences=sentences, advice=advice, rule=RULE)


def _sentence(net: NetResult) -> str:
    found = summarise(net.blocks)
    beside = "‖F(x)‖/‖x‖" if net.plain else "‖F(x)‖/‖S(x)‖"
    ratio = "no finite number in some block" if found.ratio is None else f"{found.ratio:.3f} in the median block"
    line = f"{net.label}: {beside} is {ratio}"
    if found.cosine is not None:
        line += f"; the cosine between x and y is {found.cosine:.3f}, where 1 is the identity"
    if found.dead is not None:
        line += f"; {found.dead:.1%} of the channels are dead"
    return line + "."


def _figure_seven(nets: Sequence[NetResult]) -> list[str]:
    """Responses of the trained net beside those of its plain or residual counterpart, as in He et al. 2015."""
    responses = [(net, summarise(net.blocks).response) for net in nets if net.state != INITIAL]
    known = [(net, response) for net, response in responses if response is not None]
    if len(known) < 2 or known[0][0].plain == known[1][0].plain:
        return []
    (first, a), (second, b) = known[:2]
    order = "smaller than" if a < b else "not smaller than"
    return [
        f"Responses (standard deviation after the last norm of a block, mean over blocks): {a:.3f} in {first.model}, "
        f"{order} the {b:.3f} in {second.model}."
    ]


def summarise(blocks: Sequence[BlockStatistics]) -> Residuals:
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


def shortcut_share(block: BlockStatistics) -> float | None:
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
