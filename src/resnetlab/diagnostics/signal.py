"""Which settings carry signal and gradient through the network before any training?"""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, log10

from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.diagnostics.context import Context
from resnetlab.diagnostics.load import DiagnosedNet
from resnetlab.diagnostics.probes import Probe, recompute_activations, repeatable
from resnetlab.diagnostics.sentences import orders, some
from resnetlab.diagnostics.signal_grid import own_setting, signal_grid
from resnetlab.models.init import build
from resnetlab.records.diagnosis import BlockStatistics, Diagnosis, Finding, NetResult, SettingResult, SignalResult
from resnetlab.train.recipe import fitted_config

COMPARED = ()

ORDERS = 2.0
"""Orders of magnitude over the whole depth from which on signal or gradient count as exploding or vanishing."""

RULE = (
    "One batch goes through the untrained network and back. Forward is the change of the root mean square of the "
    "signal from the first block's input to the last block's output, backward that of ∂L/∂a from the last block's "
    f"output to the first block's input, in orders of magnitude. More than +{ORDERS:g} in either: exploding; less than "
    f"−{ORDERS:g} in either: vanishing; a value that is not finite: broken; one that is exactly zero: silent; else "
    "steady. That is how a net starts: a steady one may still not train at a given rate, another may at a lower one."
)


def applies(net: DiagnosedNet, _context: Context) -> str | None:
    """Blocks are needed, and a recipe to build the settings around it."""
    if not net.blocks:
        return "it has no blocks"
    return "no recipe says how to build it in other settings" if net.recipe is None else None


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """Signal and gradient before training in every setting around that of the network."""
    assert net.recipe is not None
    config, seed = fitted_config(net.recipe, net.data), net.recipe.seed
    grid = signal_grid(config)
    settings = []
    with context.progress("signal before training") as on_progress:
        for done, (setting, changed) in enumerate(grid, start=1):
            fresh = build(changed, seed=seed, device=str(net.device))
            with repeatable(seed):
                settings.append(measure_signal(recompute_activations(fresh), *context.batch, setting))
            on_progress(done, len(grid))
    return replace(result, signal=SignalResult(own=own_setting(config), settings=settings))


def measure_signal(net: nn.Module, images: Tensor, labels: Tensor, setting: dict[str, str]) -> SettingResult:
    """Signal and gradient of ``net`` for one batch ``(N, C, H, W)``, in training mode, by ``RULE``.

    The statistics of its norms move, as in any training pass: give a network that nobody needs.

    Raises ``ConfigError`` for a network without blocks.
    """
    with Probe(net.train()) as probe:
        F.cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]
    return judge(probe.statistics(), setting)


def judge(blocks: list[BlockStatistics], setting: dict[str, str]) -> SettingResult:
    """The verdict by ``RULE`` on the statistics of a net's blocks, from the input on; one at least."""
    first, last = blocks[0], blocks[-1]
    ends = (first.input_rms, last.output_rms, last.gradient_out_rms, first.gradient_in_rms)
    forward, backward = _orders(ends[0], ends[1]), _orders(ends[2], ends[3])
    values = [value for value in ends if value is not None]
    if len(values) < len(ends):
        verdict: str = "broken"
    elif not all(values):
        verdict = "silent"
    else:
        changes = [change for change in (forward, backward) if change is not None]
        verdict = _word(max(changes), min(changes))
    return SettingResult(setting=setting, blocks=len(blocks), forward=forward, backward=backward, verdict=verdict)  # type: ignore[arg-type]


def _word(most: float, least: float) -> str:
    if most > ORDERS:
        return "exploding"
    return "vanishing" if least < -ORDERS else "steady"


def _orders(start: float | None, end: float | None) -> float | None:
    if not start or not end or not isfinite(start) or not isfinite(end):
        return None
    return log10(end / start)


def explain(diagnosis: Diagnosis) -> Finding:
    """Which settings of the grid carry signal and gradient before training, the net's own among them."""
    assert diagnosis.net.signal is not None
    own, settings = diagnosis.net.signal.own, diagnosis.net.signal.settings
    steady = [one for one in settings if one.verdict == "steady"]
    mine = next((one for one in settings if one.setting == own), None)
    sentences = [f"{len(steady)} of {len(settings)} settings are steady before any training."]
    if mine:
        sentences.append(
            f"The setting of this net ({_words(own)}) is {mine.verdict}: signal {orders(mine.forward)}, gradient "
            f"{orders(mine.backward)}."
        )
    depths = sorted({one.blocks for one in settings})
    for kind in ("plain", "residual"):
        sentences.append(f"{kind}: {'; '.join(_count(settings, kind, blocks) for blocks in depths)}.")
    return Finding(
        analysis="signal",
        verdict=mine.verdict if mine else f"{len(steady)} of {len(settings)} steady",
        sentences=sentences,
        advice=_advice(mine, steady),
        rule=RULE,
    )


def _advice(mine: SettingResult | None, steady: Sequence[SettingResult]) -> list[str]:
    if mine is None or mine.verdict == "steady":
        return []
    better = [_words(one.setting) for one in steady if one.blocks == mine.blocks]
    if not better:
        return ["No setting of this depth is steady: use fewer blocks."]
    return [f"At this depth these settings are steady: {some(better, '; ')}."]


def _count(settings: Sequence[SettingResult], kind: str, blocks: int) -> str:
    here = [one for one in settings if one.blocks == blocks and one.setting.get("kind") == kind]
    return f"{sum(one.verdict == 'steady' for one in here)} of {len(here)} steady with {blocks} blocks"


def _words(setting: dict[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in setting.items())
