"""The grid of settings whose signal is measured before any training: depth × kind × norm × start, around a network."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from resnetlab.core.errors import ConfigError
from resnetlab.models.config import NetConfig, ResidualConfig
from resnetlab.models.mlp import MLPConfig
from resnetlab.models.resnet import ResNetConfig
from resnetlab.models.surgery import with_depths

FACTOR = 3
DEEP = 100
"""Blocks from which on the other depth of the grid is a third, and not three times as many."""

Setting = tuple[dict[str, str], NetConfig]

_BARE: dict[str, Any] = {"init": "he", "zero_init_residual": False, "scale_residual": False}
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
    and without norms as SkipInit and Fixup have it.

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
                plainly = _BARE | ({"scaling": "none"} if isinstance(config, ResNetConfig) else {})
                changed: NetConfig = replace(config, **(plainly | changes | {"shortcut": shortcut, "norm": norm}))
                words = {"blocks": str(_blocks(config)), "kind": kind, "norm": norm, "start": start}
                yield words, changed


def _norms(config: ResidualConfig) -> tuple[str, ...]:
    return ("batch", "layer", "none") if isinstance(config, MLPConfig) else ("batch", "group", "none")


def _starts(config: ResidualConfig, norm: str, shortcut: str | None) -> dict[str, dict[str, Any]]:
    if shortcut is None:
        return _PLAIN
    if norm != "none" or isinstance(config, MLPConfig):
        return _RESIDUAL
    return _RESIDUAL | {"SkipInit": {"scaling": "skipinit"}, "Fixup": {"scaling": "fixup"}}


def _blocks(config: ResidualConfig) -> int:
    return config.blocks if isinstance(config, MLPConfig) else sum(config.depths)  # type: ignore[attr-defined]
