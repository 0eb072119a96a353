"""Do the gradients of different batches point one way? Their cosine, block by block."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, islice
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from resnetlab.data.loader import Loader
from resnetlab.diagnostics.context import Context
from resnetlab.diagnostics.load import DiagnosedNet
from resnetlab.diagnostics.probes import recompute_activations
from resnetlab.records.by_depth import AgreementResult, BlockAgreement
from resnetlab.records.diagnosis import Diagnosis, Finding, NetResult
from resnetlab.train.gradients import weights_by_block
from resnetlab.train.moments import cosine, left_as_it_was

COMPARED = ("initial", "plain")

BATCHES = 4
"""Batches whose gradients are compared, six pairs of them; the gradients of all are held at once."""

RULE = (
    f"The gradient of the mean loss over each of {BATCHES} different batches of training images, in training mode. The "
    "cosine between the gradients of two batches, with respect to the weights of a block, is averaged over all pairs: "
    "1 where every batch asks for the same step, 0 where what one asks for says nothing of the other. The verdict is "
    "the mean over all weights together: no threshold says how much agreement training needs."
)


def applies(net: DiagnosedNet, context: Context) -> str | None:
    """Two batches are needed."""
    return None if _loader(net, context).steps > 1 else "there is one batch of training images only"


def _loader(net: DiagnosedNet, context: Context) -> Loader:
    return Loader(net.data.train.to(net.device), net.data.normalisation, context.config.batch_size)


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """The cosines between the gradients of the first batches in the order of the seed, by block."""
    module, seed, loader = recompute_activations(net.net), context.config.seed, _loader(net, context)
    weights = weights_by_block(module)
    flat = [weight for group in weights.values() for weight in group]
    with left_as_it_was(module, seed) as call:
        gradients = [
            torch.autograd.grad(F.cross_entropy(call(images), labels), flat)
            for images, labels in islice(loader.shuffled(seed, epoch=1), BATCHES)
        ]
    blocks, first = [], 0
    for name, group in weights.items():
        last = first + len(group)
        blocks.append(agreement(name, [one[first:last] for one in gradients]))
        first = last
    found = AgreementResult(
        n=loader.batch_size, batches=len(gradients), whole=agreement("all weights", gradients), blocks=blocks
    )
    return replace(result, agreement=found)


def agreement(name: str, gradients: Sequence[Sequence[Tensor]]) -> BlockAgreement:
    """The cosine between each two of the gradients, in as many tensors each: mean and least."""
    pairs = [cosine(a, b) for a, b in combinations(gradients, 2)]
    known = [value for value in pairs if value is not None]
    if len(known) < len(pairs):
        return BlockAgreement(block=name, mean=None, least=None)
    return BlockAgreement(block=name, mean=fmean(known), least=min(known))


def judge(result: AgreementResult) -> str:
    """The mean over all weights by ``RULE``."""
    return "broken" if result.whole.mean is None else f"cosine {result.whole.mean:.2f}"


def explain(diagnosis: Diagnosis) -> Finding:
    """How well the batches agree in the net, and in those that it is compared with."""
    assert diagnosis.net.agreement is not None
    nets = (diagnosis.net, diagnosis.initial, diagnosis.plain)
    return Finding(
        analysis="agreement",
        verdict=judge(diagnosis.net.agreement),
        sentences=[_sentence(one, one.agreement) for one in nets if one and one.agreement],
        advice=[],
        rule=RULE,
    )


def _sentence(net: NetResult, result: AgreementResult) -> str:
    if result.whole.mean is None:
        return f"{net.label}: a gradient is zero or no finite number."
    known = [block for block in result.blocks if block.mean is not None]
    low, high = (pick(known, key=lambda block: block.mean or 0.0) for pick in (min, max))
    return (
        f"{net.label}: the gradients of {result.batches} batches of {result.n} images have a cosine of "
        f"{result.whole.mean:.3f} over all weights, from {low.mean:.3f} in {low.block} to {high.mean:.3f} in "
        f"{high.block}."
    )
