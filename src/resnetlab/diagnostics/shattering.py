"""Are the gradients of neighbouring images alike, or shattered into white noise? Their cosine, block by block."""

from dataclasses import replace
from math import sqrt
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from resnetlab.diagnostics.context import Context
from resnetlab.diagnostics.load import DiagnosedNet
from resnetlab.diagnostics.probes import recompute_activations
from resnetlab.diagnostics.sentences import NO_SHORTCUTS
from resnetlab.records.by_depth import BlockCosines, ShatteringResult
from resnetlab.records.diagnosis import Diagnosis, Finding, NetResult
from resnetlab.train.moments import DISTANCE, blocks_of, cosines, finite, left_as_it_was, neighbours, spread, tapped

COMPARED = ("initial", "plain")

DISTANCES = (DISTANCE, 0.001, 0.1)
"""How far a neighbour lies from its image, relative to the norm of that; the verdict is at the first."""
ERRORS = 2.0
"""Standard errors from 0 within which a mean cosine cannot be told from that of white noise."""
MOST_BLOCKS = 64
"""Blocks of a deep net that are measured: all their inputs are held at once."""

RULE = (
    f"Each image of the batch gets a neighbour, with noise of {DISTANCE:.0%} of its norm. The cosine between ∂L/∂x of "
    "both, x the input of the first block and L the loss at the image's label, is averaged over the images, in "
    f"training mode. A mean that is not more than {ERRORS:g} standard errors above 0, as that of white noise, is "
    "shattered (Balduzzi et al. 2017, arXiv:1702.08591); a larger one correlated; without a finite number broken. How "
    "much of a correlation training needs, no threshold can say."
)

Verdict = Literal["correlated", "shattered", "broken"]


def applies(net: DiagnosedNet, context: Context) -> str | None:
    """Blocks are needed, and images enough for a standard error."""
    if not net.blocks:
        return "it has no blocks"
    return "its batch has one image only" if len(context.batch[1]) < 2 else None


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """The cosines at every block's input, for the batch and its neighbours at each distance."""
    module, seed = recompute_activations(net.net), context.config.seed
    (images, labels), blocks = context.batch, spread(blocks_of(module), MOST_BLOCKS)
    with left_as_it_was(module, seed) as call:

        def gradients(batch: Tensor) -> dict[str, Tensor]:
            with tapped(blocks, {}) as found:
                loss = F.cross_entropy(call(batch), labels)
                return dict(zip(found.inputs, torch.autograd.grad(loss, list(found.inputs.values())), strict=True))

        own, known = gradients(images), []
        for distance in DISTANCES:
            near = gradients(neighbours(images, seed, distance))
            known.append({name: cosines(own[name], near[name]) for name in own})
    found = [
        BlockCosines(
            block=name,
            means=[finite(one[name].mean()) for one in known],
            errors=[finite(one[name].std() / sqrt(len(labels))) for one in known],
        )
        for name in own
    ]
    return replace(result, shattering=ShatteringResult(n=len(labels), distances=list(DISTANCES), blocks=found))


def judge(result: ShatteringResult) -> Verdict:
    """The verdict by ``RULE``."""
    mean, error = result.blocks[0].means[0], result.blocks[0].errors[0]
    if mean is None or error is None:
        return "broken"
    return "correlated" if mean > ERRORS * error else "shattered"


def explain(diagnosis: Diagnosis) -> Finding:
    """How alike neighbours' gradients are in the net, and in those that it is compared with."""
    assert diagnosis.net.shattering is not None
    verdict = judge(diagnosis.net.shattering)
    nets = (diagnosis.net, diagnosis.initial, diagnosis.plain)
    advice = []
    if verdict == "shattered":
        advice.append(
            "A step along such a gradient says nothing of the loss beside it: try shortcuts, a start near the identity "
            "(branches at zero, Dirac), or fewer blocks."
        )
        advice += [NO_SHORTCUTS] if diagnosis.net.plain else []
    sentences = [_sentence(one, one.shattering) for one in nets if one and one.shattering]
    return Finding(analysis="shattering", verdict=verdict, sentences=sentences, advice=advice, rule=RULE)


def _sentence(net: NetResult, result: ShatteringResult) -> str:
    first, last = result.blocks[0], result.blocks[-1]
    parts = [
        f"{_number(mean)}{'' if error is None else f' ± {error:.3f}'} at a distance of {distance:.1%}"
        for distance, mean, error in sorted(zip(result.distances, first.means, first.errors, strict=True))
    ]
    return (
        f"{net.label}: at the first block the gradients of neighbours have a cosine of {', '.join(parts)} "
        f"(mean ± standard error of {result.n} images); at the last block {_number(last.means[0])} at "
        f"{result.distances[0]:.1%}."
    )


def _number(value: float | None) -> str:
    return "no finite number" if value is None else f"{value:.3f}"
