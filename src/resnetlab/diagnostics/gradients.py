"""Do gradients reach the first blocks? ‖∇W‖/‖W‖ and ‖∂L/∂x‖ by block, and the way by which they arrive."""

from resnetlab.diagnostics import residuals, signal
from resnetlab.diagnostics.context import Context
from resnetlab.diagnostics.load import DiagnosedNet
from resnetlab.diagnostics.probes import measure_blocks
from resnetlab.diagnostics.sentences import BROKEN, NO_SHORTCUTS, orders
from resnetlab.records.diagnosis import Diagnosis, Finding, NetResult
from resnetlab.records.gradients import RULE, Flow
from resnetlab.records.gradients import judge as judge  # the verdict, which every run records as well

COMPARED = ("initial", "plain")

ADVICE = {
    "exploding": "The first blocks get far larger gradients than the last: before a longer training try a norm in "
    "every block, a warm-up, or clipping (--clip-norm 1).",
    "vanishing": "The first blocks get far smaller gradients than the last and will learn late or never: try a norm in "
    "every block, or fewer blocks.",
    "silent": "A gradient is exactly zero: right for branches that start at zero and have not taken a step yet; in a "
    "trained net that block is dead.",
    "broken": BROKEN,
}


def applies(_net: DiagnosedNet, _context: Context) -> None:
    """Every network has gradients."""


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """Gradients of the batch by block, or by layer where there are no blocks."""
    return measure_blocks(net, context, result)


def explain(diagnosis: Diagnosis) -> Finding:
    """Flow of gradients over depth in the net, and in those it is compared with."""
    net = diagnosis.net
    assert net.flow is not None
    verdict = net.flow.verdict
    advice = [ADVICE[verdict]] if verdict in ADVICE else []
    if net.plain and verdict not in ("healthy", "silent"):
        advice.append(NO_SHORTCUTS)
    sentences = [_sentence(one, one.flow) for one in (net, diagnosis.initial, diagnosis.plain) if one and one.flow]
    return Finding(analysis="gradients", verdict=verdict, sentences=sentences, advice=advice, rule=RULE)


def _sentence(net: NetResult, flow: Flow) -> str:
    line = f"{net.label}: gradients are {flow.verdict}" if flow.growth is None else _growth(net, flow.growth)
    if flow.growth is not None:
        line += f": {flow.verdict}"
    if net.blocks:
        backward = signal.judge(net.blocks, {}).backward
        line += f". Over the same blocks the root mean square of ∂L/∂x changes by {orders(backward)}"
        share = residuals.summarise(net.blocks).share
        line += "" if share is None else f"; in the median block {share:.0%} of it comes through the shortcut"
    return line + "."


def _growth(net: NetResult, growth: float) -> str:
    growth = growth or 0.0  # and no -0.0
    blocks = sum(gradient.block.startswith("stages.") for gradient in net.gradients)
    each = f", {growth / (blocks - 1):+.3f} a block" if blocks > 1 else ""
    return f"{net.label}: from the last block to the first ‖∇W‖/‖W‖ changes by {growth:+.2f} orders of magnitude{each}"
