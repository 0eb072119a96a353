"""The loss around a trained network, on a plane of random directions whose filters are as large as its own.

Li et al. 2018, arXiv:1712.09913, §4. Without that scale a net whose weights are large looks flat: a direction of a
given length changes it less.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isfinite, log
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resnetlab.core.errors import require
from resnetlab.core.randomness import generator
from resnetlab.diagnostics.context import Context, some_images
from resnetlab.diagnostics.load import UNTRAINED, DiagnosedNet
from resnetlab.diagnostics.sentences import BROKEN, NO_SHORTCUTS
from resnetlab.records.diagnosis import Diagnosis, Finding, LandscapeResult, NetResult
from resnetlab.train.evaluate import eval_mode

COMPARED = ("plain",)

ADVICE = {
    "rugged": "Compare with fewer or wider blocks, whose surfaces Li et al. found smoother (§5).",
    "untrained": "The net is no better than guessing on these images: there is no minimum to look at; train it.",
    "broken": BROKEN,
}

Batch = tuple[Tensor, Tensor]
Grid = np.ndarray[Any, np.dtype[np.float64]]
Weights = dict[str, Tensor]

LandscapeVerdict = Literal["smooth", "between", "rugged", "untrained", "broken"]

LITTLE, BENT, ROUNDING = 0.1, 0.01, 1e-5
SMOOTH, RUGGED = 0.9, 0.5

RULE = (
    f"The surface is flat where the loss exceeds the network's own by at most {LITTLE:.0%} of the gap to that of "
    "guessing, ln C for C classes. It is convex at an inner point where the smaller of the two curvatures within the "
    f"plane is not negative; a negative one below {BENT:.0%} of the larger, or within rounding, counts as zero. What "
    "is not convex in the plane is not convex in the space of all weights; the reverse does not hold. Convex at "
    f"{SMOOTH:.0%} of the inner points or more: smooth; at {RUGGED:.0%} or fewer: rugged; else between. A network no "
    "better than guessing: untrained; no finite loss in the centre, or none around it: broken."
)


def applies(net: DiagnosedNet, _context: Context) -> str | None:
    """A trained network is needed."""
    return None if net.trained else UNTRAINED


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """The loss around a network, on training images that the seed chooses: the same of a net and its counterpart."""
    config = context.config
    loader = some_images(net, net.data.train, config.landscape_images, config.seed, "landscape pictures")
    with context.progress(f"loss around {net.model}") as on_progress:
        found = landscape(
            net.net,
            list(loader.in_order()),
            side=config.landscape_side,
            reach=config.landscape_reach,
            seed=config.seed,
            on_progress=on_progress,
        )
    return replace(result, landscape=found)


def landscape(
    net: nn.Module,
    batches: Sequence[Batch],
    *,
    side: int = 21,
    reach: float = 1.0,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> LandscapeResult:
    """Mean cross-entropy over ``batches`` (images ``(N, C, H, W)``, labels ``(N,)``) at w + a δ + b η.

    a and b take ``side`` values each, evenly from -``reach`` to ``reach``; ``directions`` gives δ and η. All in eval
    mode, so that norms keep their statistics, as the authors have it. At the centre stands the net's own loss, to the
    bit. The network is left as it was.

    Raises ``ConfigError`` for an even ``side``, which has no centre, and for a ``reach`` that is no distance.
    """
    require(side >= 3 and side % 2 == 1, "side", side, "an odd number from 3 on, so that the net stands in the centre")
    require(isfinite(reach) and reach > 0, "reach", reach, "a number above 0")
    require(len(batches) > 0, "batches", len(batches), "at least one batch of images")
    own = {name: parameter.detach() for name, parameter in net.named_parameters()}
    first, second = directions(own, seed, "a"), directions(own, seed, "b")
    half = side // 2
    # Not linspace: 0 must be 0, and both halves alike.
    axis = [reach * step / half for step in range(-half, half + 1)]
    losses = np.empty((side, side))
    with eval_mode(net), torch.no_grad():
        classes = net(batches[0][0][:1]).shape[1]
        for done, (row, column) in enumerate(np.ndindex(side, side), start=1):
            losses[row, column] = mean_loss(net, moved(own, first, axis[column], second, axis[row]), batches)
            if on_progress:
                on_progress(done, side**2)
    centre = float(losses[half, half])
    return LandscapeResult(
        seed=seed,
        n=sum(len(labels) for _, labels in batches),
        axis=axis,
        losses=[[value if isfinite(value) else None for value in row] for row in losses.tolist()],
        centre=centre if isfinite(centre) else None,
        guess=log(classes),
        flat=flat_share(losses, log(classes)),
        convex=convex_share(losses),
    )


def judge(result: LandscapeResult) -> LandscapeVerdict:
    """The verdict by ``RULE``."""
    if result.centre is None or result.convex is None:
        return "broken"
    if result.flat is None:
        return "untrained"
    return "smooth" if result.convex >= SMOOTH else "rugged" if result.convex <= RUGGED else "between"


def explain(diagnosis: Diagnosis) -> Finding:
    """How flat and how convex the loss is around the net, and around its plain counterpart."""
    net = diagnosis.net
    assert net.landscape is not None
    verdict = judge(net.landscape)
    sentences = [_sentence(one.label, one.landscape) for one in (net, diagnosis.plain) if one and one.landscape]
    sentences.append(
        f"One pair of directions was drawn (seed {net.landscape.seed}); another pair (--seed) shows another plane."
    )
    advice = [ADVICE[verdict]] if verdict in ADVICE else []
    if verdict == "rugged" and net.plain:
        advice = [NO_SHORTCUTS]
    return Finding(analysis="landscape", verdict=verdict, sentences=sentences, advice=advice, rule=RULE)


def _sentence(label: str, found: LandscapeResult) -> str:
    known = [loss for row in found.losses for loss in row if loss is not None]
    centre = "no finite loss" if found.centre is None else f"loss {found.centre:.3g}"
    line = f"{label}: {centre} in the centre (n = {found.n:,} training images, by guessing {found.guess:.3g})"
    if known:
        most = max(known)
        line += f", up to {most:,.0f} on the square" if 100 <= most < 1e6 else f", up to {most:.3g} on the square"
    if found.flat is not None:
        line += f"; flat on {found.flat:.1%} of it"
    if found.convex is not None:
        line += f"; convex at {found.convex:.1%} of its inner points"
    return line + "."


def directions(weights: Mapping[str, Tensor], seed: int, axis: str) -> Weights:
    """δ: for each filter w of the network a normal draw d, scaled to d · ‖w‖/‖d‖.

    A filter is what makes one channel of a convolution, or one row of a matrix. Scales, shifts and biases, which are no
    filters, stay where they are and are left out. The draw depends on (seed, axis, name) alone.
    """
    found = {}
    for name, weight in weights.items():
        if weight.dim() > 1:
            draws = generator(seed, "landscape", axis, name).standard_normal(weight.shape, dtype="float32")
            direction = torch.from_numpy(draws).to(weight)
            # In float64 the square of no weight over- or underflows.
            scale = _filter_norms(weight) / _filter_norms(direction)
            found[name] = direction * scale.to(weight.dtype).view(-1, *[1] * (weight.dim() - 1))
    return found


def _filter_norms(weight: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1, dtype=torch.float64)
    return norms


def moved(own: Weights, first: Weights, a: float, second: Weights, b: float) -> Weights:
    """w + a δ + b η; w itself where a = b = 0."""
    # Nothing is added there: 0 · δ is no zero where δ has overflowed.
    if a == b == 0:
        return own
    return own | {name: own[name] + a * first[name] + b * second[name] for name in first}


def mean_loss(net: nn.Module, weights: Weights, batches: Sequence[Batch]) -> float:
    """Mean cross-entropy of ``net`` with these weights over every image; added up in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for images, labels in batches:
        logits = functional_call(net, weights, (images,))
        total += F.cross_entropy(logits, labels, reduction="sum").double().cpu()
    return float(total) / sum(len(labels) for _, labels in batches)


def flat_share(losses: Grid, guess: float) -> float | None:
    """The share of the square that is flat by ``RULE``; None where its centre is no better than ``guess``."""
    centre = losses[losses.shape[0] // 2, losses.shape[1] // 2]
    if not centre < guess:
        return None
    return float((losses <= centre + LITTLE * (guess - centre)).mean())


def convex_share(losses: Grid) -> float | None:
    """The share of the inner places that is convex by ``RULE``; None where every one has a neighbour that is no number.

    With f_aa = f(a+h) - 2 f(a) + f(a-h) and f_ab = (f(+,+) - f(+,-) - f(-,+) + f(-,-)) / 4, the curvatures are the
    eigenvalues of ((f_aa, f_ab), (f_ab, f_bb)), in units of 1/h².
    """
    f = np.where(np.isfinite(losses), losses, np.nan)
    here = f[1:-1, 1:-1]
    across, along = f[1:-1, 2:] - 2 * here + f[1:-1, :-2], f[2:, 1:-1] - 2 * here + f[:-2, 1:-1]
    mixed = (f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / 4
    known = np.isfinite(across + along + mixed)
    if not known.any():
        return None
    middle, reach = (across + along) / 2, np.hypot((across - along) / 2, mixed)
    least, most = middle - reach, middle + reach
    allowed = np.maximum(BENT * np.abs(most), ROUNDING * np.abs(here))
    return float((least >= -allowed)[known].mean())
