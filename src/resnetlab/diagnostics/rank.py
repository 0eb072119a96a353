"""How many directions do the images fill at every depth? Effective and stable rank of each block's output."""

from dataclasses import replace

import torch
from torch import Tensor

from resnetlab.diagnostics.context import Context
from resnetlab.diagnostics.load import DiagnosedNet
from resnetlab.diagnostics.probes import recompute_activations
from resnetlab.records.by_depth import BlockRank, RankResult
from resnetlab.records.diagnosis import Diagnosis, Finding, NetResult
from resnetlab.train.moments import (
    blocks_of,
    effective_rank,
    finite,
    left_as_it_was,
    singular_values,
    spread,
    stable_rank,
    tapped,
)

COMPARED = ("initial", "plain")

MOST_BLOCKS = 64
"""Blocks of a deep net that are measured: all their outputs are held at once."""

RULE = (
    "A has a row for each image of the batch: what the block gives for it in training mode, flattened, less the mean "
    "of all. The effective rank is exp(H(p)), p the singular values of A over their sum and H(p) = -Σ p ln p (Roy & "
    "Vetterli 2007, EUSIPCO); the stable rank ‖A‖_F²/‖A‖₂². Both are at most the images less 1. The verdict is the "
    "effective rank of the last block: no threshold says how many directions a head needs."
)


def applies(net: DiagnosedNet, _context: Context) -> str | None:
    """Blocks are needed."""
    return None if net.blocks else "it has no blocks"


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """The ranks of every block's output for the batch, from one pass forward."""
    module = recompute_activations(net.net)
    blocks = spread(blocks_of(module), MOST_BLOCKS)
    with left_as_it_was(module, context.config.seed) as call, torch.no_grad(), tapped({}, blocks) as found:
        call(context.batch[0])
    ranks = [measure_rank(name, output) for name, output in found.outputs.items()]
    return replace(result, rank=RankResult(n=len(context.batch[1]), blocks=ranks))


def measure_rank(name: str, output: Tensor) -> BlockRank:
    """The ranks of one block's output ``(N, …)``."""
    values = singular_values(output)
    whole, mean = output.double().square().sum(), output.double().mean(dim=0).square().sum()
    return BlockRank(
        block=name,
        effective=effective_rank(values),
        stable=stable_rank(values),
        common=finite(len(output) * mean / whole),
    )


def judge(result: RankResult) -> str:
    """The effective rank of the last block by ``RULE``, of how many it could be."""
    last = result.blocks[-1].effective
    return "broken" if last is None else f"{last:.1f} of {result.n - 1}"


def explain(diagnosis: Diagnosis) -> Finding:
    """The ranks from the first block to the last in the net, and in those that it is compared with."""
    assert diagnosis.net.rank is not None
    nets = (diagnosis.net, diagnosis.initial, diagnosis.plain)
    return Finding(
        analysis="rank",
        verdict=judge(diagnosis.net.rank),
        sentences=[_sentence(one, one.rank) for one in nets if one and one.rank],
        advice=[],
        rule=RULE,
    )


def _sentence(net: NetResult, result: RankResult) -> str:
    first, last = result.blocks[0], result.blocks[-1]
    line = (
        f"{net.label}: the effective rank goes from {_number(first.effective)} after the first block to "
        f"{_number(last.effective)} after the last, the stable rank from {_number(first.stable)} to "
        f"{_number(last.stable)}, of {result.n - 1} that {result.n} images can fill"
    )
    if last.common is not None:
        line += f"; {last.common:.0%} of what the last block gives is common to all images"
    return line + "."


def _number(value: float | None) -> str:
    return "no finite number" if value is None else f"{value:.1f}"
