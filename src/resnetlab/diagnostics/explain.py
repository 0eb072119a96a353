"""From numbers to plain language: what each part of a diagnosis found, and what one might do about it.

Every sentence has the number that it rests on, and advice comes from verdicts alone; nothing is said that was not
measured on the networks at hand.
"""

from collections.abc import Sequence
from statistics import fmean, median

from resnetlab.diagnostics import lesion, residuals, signal
from resnetlab.records import gradients as flow
from resnetlab.records.diagnosis import Finding, IdentityReading, LesionReading, NetReading, SignalReading

NAMED = 4
"""Blocks or settings that a sentence names at most."""

FLOW_ADVICE = {
    "exploding": "The first blocks get far larger gradients than the last: before a longer training try a norm in "
    "every block, a warm-up, or clipping (--clip-norm 1).",
    "vanishing": "The first blocks get far smaller gradients than the last and will learn late or never: try a norm in "
    "every block, or fewer blocks.",
    "silent": "A gradient is exactly zero: right for branches that start at zero and have not taken a step yet; in a "
    "trained net that block is dead.",
    "broken": "A gradient is not a finite number: try a lower rate, a norm in every block, or scale_residual.",
}
SHORTCUT_ADVICE = "This net has no shortcuts: its residual twin of equal size is the first thing to compare with."


def explain_gradients(net: NetReading, *others: NetReading | None) -> Finding:
    """Flow of gradients over depth in the net, and in those it is compared with."""
    assert net.flow is not None
    verdict = net.flow.verdict
    advice = [FLOW_ADVICE[verdict]] if verdict in FLOW_ADVICE else []
    if net.plain and verdict not in ("healthy", "silent"):
        advice.append(SHORTCUT_ADVICE)
    shown = [net, *(other for other in others if other)]
    sentences = [_flow_sentence(one) for one in shown]
    return Finding(part="gradients", verdict=verdict, sentences=sentences, advice=advice, rule=flow.RULE)


def explain_residuals(net: NetReading, *others: NetReading | None) -> Finding:
    """What the branches add to what passes, how near each block is to the identity, and what is dead."""
    found = residuals.summarise(net.blocks)
    sentences = []
    for one in [net, *(other for other in others if other)]:
        sentences += _residual_sentences(one)
    sentences += _figure_seven(net, *others)
    advice = []
    if found.idle and found.verdict != "silent":
        advice.append(
            f"{_some(found.idle)} change next to nothing: see under lesion whether the net does as well without them."
        )
    if found.dead is not None and found.dead >= residuals.DEAD:
        advice.append(
            f"{found.dead:.0%} of the channels are dead for this batch: a lower rate, a warm-up or leaky_relu may keep "
            "them alive; the width that they take is not used."
        )
    if found.verdict == "broken":
        advice.append(FLOW_ADVICE["broken"])
    return Finding(part="residuals", verdict=found.verdict, sentences=sentences, advice=advice, rule=residuals.RULE)


def explain_signal(readings: Sequence[SignalReading], own: dict[str, str]) -> Finding:
    """Which settings of the grid carry signal and gradient before training; ``own`` is the net's setting in it."""
    steady = [reading for reading in readings if reading.verdict == "steady"]
    mine = next((reading for reading in readings if reading.setting == own), None)
    verdict = mine.verdict if mine else f"{len(steady)} of {len(readings)} steady"
    sentences = [f"{len(steady)} of {len(readings)} settings are steady before any training."]
    if mine:
        sentences.append(
            f"The setting of this net ({_words(own)}) is {mine.verdict}: signal {_orders(mine.forward)}, gradient "
            f"{_orders(mine.backward)}."
        )
    for kind in ("plain", "residual"):
        depths = sorted({reading.blocks for reading in readings})
        counts = [_count_of(readings, kind, blocks) for blocks in depths]
        sentences.append(f"{kind}: {'; '.join(counts)}.")
    advice = []
    if mine and mine.verdict != "steady":
        better = [_words(r.setting) for r in steady if r.blocks == mine.blocks]
        advice.append(
            f"At this depth these settings are steady: {_some(better, '; ')}."
            if better
            else "No setting of this depth is steady: use fewer blocks."
        )
    return Finding(part="signal", verdict=verdict, sentences=sentences, advice=advice, rule=signal.RULE)


def explain_lesion(net: NetReading, control: NetReading | None) -> Finding:
    """What single blocks, sets of blocks and their order are worth."""
    assert net.lesion is not None
    verdict = lesion.judge(net.lesion)
    sentences = []
    for one in (net, control):
        if one and one.lesion:
            sentences += _lesion_sentences(one.label, one.lesion)
    advice = []
    free = [change.blocks[0] for change in net.lesion.dropped if change.error <= net.lesion.intact.error]
    if free and verdict != "untrained":
        advice.append(
            f"Without {_some(free)}, each alone, the error is not higher: resnetlab weights prune RUN --out NEW "
            f"--without {free[0]} keeps the smaller net. These test images chose the block; check it on others."
        )
    if verdict == "fragile" and net.plain:
        advice.append(SHORTCUT_ADVICE)
    if verdict == "untrained":
        advice.append("The net answers hardly better than by chance: a lesion tells nothing of it; train it first.")
    return Finding(part="lesion", verdict=verdict, sentences=sentences, advice=advice, rule=lesion.RULE)


IDENTITY_RULE = (
    "The deepened net must give every logit of the test images to the bit as before: equal, else not equal. The "
    "errors after training are those of one run each; their difference is no more than a hint."
)


def explain_identity(reading: IdentityReading) -> Finding:
    """The deeper net that is no worse by construction, and what training on made of it."""
    before, deeper, same = reading.before, reading.deeper, reading.same
    bits = "every logit stayed equal to the bit" if reading.equal else "some logit changed"
    sentences = [
        f"{reading.added} identity blocks behind stage {reading.stage} make {reading.blocks} in all; {bits} "
        f"(n = {before.n:,} test images, error {before.error:.2%}).",
        f"Trained on for {reading.epochs} epoch{'' if reading.epochs == 1 else 's'}, the deeper net has "
        f"{deeper.error:.2%} error and loss {deeper.loss:.4f}, the net of the old depth {same.error:.2%} and "
        f"{same.loss:.4f} (n = {deeper.n:,}, one run each).",
    ]
    return Finding(
        part="identity",
        verdict="equal" if reading.equal else "not equal",
        sentences=sentences,
        advice=[],
        rule=IDENTITY_RULE,
    )


def _flow_sentence(net: NetReading) -> str:
    assert net.flow is not None
    if net.flow.growth is None:
        line = f"{net.label}: gradients are {net.flow.verdict}"
    else:
        growth = net.flow.growth or 0.0  # and no -0.0
        blocks = [g for g in net.gradients if g.block.startswith("stages.")]
        each = f", {growth / (len(blocks) - 1):+.3f} a block" if len(blocks) > 1 else ""
        line = (
            f"{net.label}: from the last block to the first ‖∇W‖/‖W‖ changes by {growth:+.2f} orders of "
            f"magnitude{each}: {net.flow.verdict}"
        )
    if net.blocks:
        backward = _orders(signal.judge(net.blocks, {}).backward)
        line += f". On the same way the root mean square of ∂L/∂x changes by {backward}"
        share = residuals.summarise(net.blocks).share
        line += "" if share is None else f"; in the median block {share:.0%} of it arrives through the shortcut"
    return line + "."


def _residual_sentences(net: NetReading) -> list[str]:
    found = residuals.summarise(net.blocks)
    beside = "‖F(x)‖/‖x‖" if net.plain else "‖F(x)‖/‖S(x)‖"
    ratio = "no finite number in some block" if found.ratio is None else f"{found.ratio:.3f} in the median block"
    line = f"{net.label}: {beside} is {ratio}"
    if found.cosine is not None:
        line += f"; the cosine between x and y is {found.cosine:.3f}, where 1 is the identity"
    if found.dead is not None:
        line += f"; {found.dead:.1%} of the channels are dead"
    return [line + "."]


def _figure_seven(net: NetReading, *others: NetReading | None) -> list[str]:
    pair = [one for one in (net, *others) if one and one.state != "at initialisation"]
    found = [(one, residuals.summarise(one.blocks).response) for one in pair]
    known = [(one, value) for one, value in found if value is not None]
    if len(known) < 2 or known[0][0].plain == known[1][0].plain:
        return []
    (first, a), (second, b) = known[:2]
    order = "smaller than" if a < b else "not smaller than"
    return [
        f"Responses (standard deviation behind the last norm of a block, mean over blocks): {a:.3f} in {first.model}, "
        f"{order} the {b:.3f} in {second.model}."
    ]


def _lesion_sentences(label: str, found: LesionReading) -> list[str]:
    worst = max(found.dropped, key=lambda change: change.error)
    lines = [
        f"{label}: whole {found.intact.error:.2%} error (n = {found.n:,} test images, by chance {found.chance:.1%}); "
        f"without one block {100 * median(found.costs):+.2f} points in the median of {len(found.costs)}, at worst "
        f"{100 * max(found.costs):+.2f} without {worst.blocks[0]}."
    ]
    if found.several:
        most = max(len(change.blocks) for change in found.several)
        errors = [change.error for change in found.several if len(change.blocks) == most]
        lines.append(f"{label}: without {most} blocks at once {fmean(errors):.2%} error.")
    if found.swapped:
        errors = [change.error for change in found.swapped]
        lines.append(f"{label}: with two neighbours exchanged {median(errors):.2%} error in the median.")
    return lines


def _count_of(readings: Sequence[SignalReading], kind: str, blocks: int) -> str:
    here = [r for r in readings if r.blocks == blocks and r.setting.get("kind") == kind]
    steady = sum(reading.verdict == "steady" for reading in here)
    return f"{steady} of {len(here)} steady with {blocks} blocks"


def _orders(change: float | None) -> str:
    return "no number" if change is None else f"{change:+.2f} orders of magnitude"


def _words(setting: dict[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in setting.items())


def _some(names: Sequence[str], between: str = ", ") -> str:
    rest = len(names) - NAMED
    return between.join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
