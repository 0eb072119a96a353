"""Which settings carry signal and gradient through the network before any training?"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isfinite, log10
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError
from resnetlab.diagnostics.context import Context
from resnetlab.diagnostics.load import DiagnosedNet
from resnetlab.diagnostics.probes import Probe, recompute_activations, repeatable
from resnetlab.diagnostics.sentences import orders, some
from resnetlab.models.config import USUAL_START, NetConfig, ResidualConfig
from resnetlab.models.init import build
from resnetlab.models.mlp import MLPConfig
from resnetlab.models.resnet import ResNetConfig
from resnetlab.models.surgery import with_depths
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
    "steady. This describes the start only: a steady net may fail at a given rate, another may train at a lower one."
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
    sentences = [f"{len(steady)} of {len(settings)} settings are steady before training."]
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


FACTOR = 3
DEEP = 100
"""Blocks from which on the other depth of the grid is a third, and not three times as many."""

Setting = tuple[dict[str, str], NetConfig]

_BARE: dict[str, Any] = {**USUAL_START, "zero_init_residual": False, "scale_residual": False}
_PLAIN: dict[str, dict[str, Any]] = {"He": {}, "Xavier": {"init": "xavier"}}
_RESIDUAL: dict[str, dict[str, Any]] = {
    **_PLAIN,
    "zero branch": {"zero_init_residual": True},
    "1/√L branch": {"scale_residual": True},
}


def signal_grid(config: NetConfig) -> list[Setting]:
    """Settings in words with their configurations: the network's own depth and another one, plain and residual, every
    norm of its family, and each start that a setting allows. All weights are drawn as He et al. or as Glorot & Bengio
    (Xavier) have it; residual branches, drawn as He has it, also start at zero (Goyal et al. 2017), at 1/√L of that,
    and without norms as SkipInit and Fixup have it. A network of another ``init`` has that one beside them.

    Raises ``ConfigError`` for a network without blocks.
    """
    if not isinstance(config, ResidualConfig):
        raise ConfigError(
            "the signal of a network is measured block by block, and this one has no blocks, as VGG has none"
        )
    return [setting for deep in _depths(config) for setting in _of_depth(deep)]


def own_setting(config: NetConfig) -> dict[str, str]:
    """How ``signal_grid`` names the setting of the network itself."""
    return next((words for words, other in signal_grid(config) if other == config), {})


def _depths(config: ResidualConfig) -> list[ResidualConfig]:
    if isinstance(config, MLPConfig):
        first = config.depth - 2 * config.blocks
        blocks = max(1, config.blocks)
        return [config, replace(config, depth=first + 2 * _other(blocks))]
    assert isinstance(config, ResNetConfig)
    deep = sum(config.depths) > DEEP
    return [config, with_depths(config, [-(-n // FACTOR) if deep else FACTOR * n for n in config.depths])]


def _other(blocks: int) -> int:
    return -(-blocks // FACTOR) if blocks > DEEP else FACTOR * blocks


def _of_depth(config: ResidualConfig) -> Iterator[Setting]:
    for kind in ("plain", "residual"):
        shortcut = None if kind == "plain" else config.shortcut or "A"
        for norm in _norms(config):
            for start, changes in _starts(config, norm, shortcut).items():
                plainly = _BARE | {"scaling": "none"}
                changed: NetConfig = replace(config, **(plainly | changes | {"shortcut": shortcut, "norm": norm}))
                words = {"blocks": str(_blocks(config)), "kind": kind, "norm": norm, "start": start}
                yield words, changed


def _norms(config: ResidualConfig) -> tuple[str, ...]:
    return ("batch", "layer", "none") if isinstance(config, MLPConfig) else ("batch", "group", "none")


def _starts(config: ResidualConfig, norm: str, shortcut: str | None) -> dict[str, dict[str, Any]]:
    own = (
        {} if config.init in ("he", "xavier") else {config.init: {name: getattr(config, name) for name in USUAL_START}}
    )
    if shortcut is None:
        return _PLAIN | own
    starts = _RESIDUAL if config.init == "tat" else _RESIDUAL | own
    if norm != "none" or isinstance(config, MLPConfig):
        return starts
    return starts | {"SkipInit": {"scaling": "skipinit"}, "Fixup": {"scaling": "fixup"}}


def _blocks(config: ResidualConfig) -> int:
    return config.blocks if isinstance(config, MLPConfig) else sum(config.depths)  # type: ignore[attr-defined]
