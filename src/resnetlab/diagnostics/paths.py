"""How long are the paths that carry the gradient of a residual network?

Of n blocks each lets a signal through its branch or through its shortcut, which makes 2ⁿ paths, C(n, k) of them through
k branches. Most paths are long; most of the gradient takes short ones (Veit et al. 2016, arXiv:1605.06431, §4.3).
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import comb, inf, isfinite, log, log10
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError, require
from resnetlab.core.randomness import generator
from resnetlab.diagnostics.context import DEEP, Context
from resnetlab.diagnostics.load import DiagnosedNet
from resnetlab.diagnostics.sentences import BROKEN
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.recompute import SegmentedStage
from resnetlab.records.diagnosis import Diagnosis, Finding, NetResult, PathLength, PathResult
from resnetlab.train.evaluate import eval_mode

COMPARED = ("initial",)

ADVICE = {
    "short": "Short paths train this net: before adding blocks, compare with a net of as many parameters in fewer and "
    "wider blocks.",
    "long": "The gradient goes through most of the branches, as in a plain net: see under residuals whether they "
    "outweigh their shortcuts. Branches that start at zero (--options zero_init_residual true) begin with short paths.",
    "broken": BROKEN,
}

HELD = 0.95
"""The share of the gradient that the range of lengths holds."""
MOST_LENGTHS = 64
"""Lengths that are measured; in a deeper net those between are read off the line that joins them."""

PathVerdict = Literal["short", "between", "long", "broken"]

Logs = np.ndarray[Any, np.dtype[np.float64]]

RULE = (
    "One batch goes forward through the whole network in training mode, without dropout. The gradient goes back along "
    "one path at a time: through the branch only in k random blocks, through the shortcut only in all others. The norm "
    "of the gradient at the input, averaged over the sampled paths and multiplied by the number of paths of that "
    "length, C(n, k), is the contribution of paths of k branches. Gradients of different paths may cancel, which norms "
    f"do not show. The range holds {HELD:.0%} of all contributions. If all paths counted alike, their mean length "
    "would be n/2: a range that ends below n/2 is short, one that begins above it long, else between. No gradient, or "
    "none that is finite: broken."
)


def applies(net: DiagnosedNet, _context: Context) -> str | None:
    """Blocks are needed, each with a shortcut."""
    if not net.blocks:
        return "it has no blocks"
    if any(block.shortcut is None for block in net.blocks):
        return "without shortcuts there is one path through it, of full length"
    return None


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """The lengths of the paths that carry the gradient of the batch.

    A path keeps what every block gave. So beyond ``DEEP`` blocks fewer images are taken: as many values are kept as
    of so many blocks.
    """
    images, labels = context.batch
    blocks = len(net.blocks)
    n = max(2, len(labels) * min(DEEP, blocks) // blocks)
    draws, seed = context.config.path_draws, context.config.seed
    with context.progress(f"paths of {net.model}") as on_progress:
        found = path_lengths(net.net, images[:n], labels[:n], draws=draws, seed=seed, on_progress=on_progress)
    return replace(result, paths=found)


def path_lengths(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    draws: int = 16,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> PathResult:
    """The gradient of the mean cross-entropy at ``images`` ``(N, C, H, W)``, by the number of branches on its way.

    ``draws`` random paths of each length are measured, or all where there are no more; of a net with more than
    ``MOST_LENGTHS`` blocks some lengths only. The network is left as it was.

    A gate is a factor on either way; what arrives through the gate itself belongs to no path.

    Raises ``ConfigError`` for a network without shortcuts, which has one path, and for a single image.
    """
    require(draws >= 1, "draws", draws, "at least 1")
    require(len(images) > 1, "images", len(images), "at least 2: norms take the statistics of the batch")
    tape = record(net, images, labels)
    blocks = len(tape.blocks)
    plan = [(length, chosen) for length in measured(blocks) for chosen in paths_of(blocks, length, draws, seed)]
    found: dict[int, list[float]] = {}
    for done, (length, chosen) in enumerate(plan, start=1):
        found.setdefault(length, []).append(tape.log_gradient(chosen))
        if on_progress:
            on_progress(done, len(plan))
    return summarise(found, blocks, seed, len(labels))


def judge(result: PathResult) -> PathVerdict:
    """The verdict by ``RULE``."""
    if result.low is None or result.high is None:
        return "broken"
    if 2 * result.high < result.blocks:
        return "short"
    return "long" if 2 * result.low > result.blocks else "between"


def explain(diagnosis: Diagnosis) -> Finding:
    """How many branches the gradient goes through, in the net and before its training."""
    assert diagnosis.net.paths is not None
    verdict = judge(diagnosis.net.paths)
    sentences = [_sentence(one.label, one.paths) for one in (diagnosis.net, diagnosis.initial) if one and one.paths]
    advice = [ADVICE[verdict]] if verdict in ADVICE else []
    return Finding(analysis="paths", verdict=verdict, sentences=sentences, advice=advice, rule=RULE)


def _sentence(label: str, found: PathResult) -> str:
    if found.mean is None:
        return f"{label}: no gradient arrives, or none that is finite (n = {found.n} images)."
    return (
        f"{label}: the gradient goes through {found.mean:.1f} of {found.blocks} branches on average; "
        f"{HELD:.0%} of it through {found.low} to {found.high} (n = {found.n} images)."
    )


def measured(blocks: int) -> list[int]:
    """The lengths to measure: all from 0 to ``blocks``, or ``MOST_LENGTHS`` evenly spread ones."""
    count = min(blocks + 1, MOST_LENGTHS)
    return sorted({round(number * blocks / (count - 1)) for number in range(count)})


def paths_of(blocks: int, length: int, draws: int, seed: int) -> list[tuple[int, ...]]:
    """All sets of ``length`` blocks where there are at most ``draws``, else ``draws`` random ones."""
    if comb(blocks, length) <= draws:
        return list(combinations(range(blocks), length))
    return [
        tuple(sorted(generator(seed, "path", blocks, length, number).permutation(blocks)[:length].tolist()))
        for number in range(draws)
    ]


def summarise(found: dict[int, list[float]], blocks: int, seed: int, n: int) -> PathResult:
    """The result from log10 of the gradients of each measured length, of ``n`` images."""
    lengths = np.arange(blocks + 1.0)
    means = np.array([_log_mean(values) for values in found.values()])
    logs = _between(lengths, np.array(list(found), dtype=np.float64), means)
    shares = _shares(logs, blocks)
    known = bool(np.isfinite(shares).all())
    passed = np.cumsum(shares)
    tail = (1 - HELD) / 2
    return PathResult(
        seed=seed,
        n=n,
        blocks=blocks,
        lengths=[
            PathLength(
                length=length,
                paths=len(found.get(length, ())),
                log_magnitude=_finite(logs[length]),
                share=_finite(shares[length]),
            )
            for length in range(blocks + 1)
        ],
        mean=float(lengths @ shares) if known else None,
        low=int(np.argmax(passed >= tail)) if known else None,
        # Of the last value rounding may leave less than 1, never less than 0.975.
        high=int(np.argmax(passed >= 1 - tail)) if known else None,
    )


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None


def _log_mean(logs: Sequence[float]) -> float:
    """log10 of the mean of 10^x: -inf where all are, NaN where one is."""
    values = np.array(logs)
    largest = values.max()
    if largest == -inf or np.isnan(largest):
        return float(largest)
    return float(largest + log10(np.mean(10 ** (values - largest))))


def _between(lengths: Logs, known: Logs, logs: Logs) -> Logs:
    """The logarithm at every length, on the line between those that are known; none beside a zero or a NaN.

    The mean gradient falls about exponentially with the length (Figure 6b), which is a line here.
    """
    above = np.searchsorted(known, lengths)
    below = np.where(known[above] == lengths, above, above - 1)
    part = (lengths - known[below]) / np.maximum(known[above] - known[below], 1)
    ends = np.stack([logs[below], logs[above]])
    with np.errstate(invalid="ignore"):
        joined = ends[0] + part * (ends[1] - ends[0])
    # From -inf to -inf no line leads; a NaN stays one.
    return np.where(np.isneginf(ends).any(axis=0) & ~np.isnan(ends).any(axis=0), -inf, joined)


def _shares(logs: Logs, blocks: int) -> Logs:
    """C(n, k) g(k) over its sum. NaN everywhere where a gradient is not finite, or all are zero."""
    # Whole numbers have logarithms of any size; C(1200, 600) is no float.
    weighted = logs + np.array([log10(comb(blocks, length)) for length in range(blocks + 1)])
    if np.isnan(weighted).any() or np.isneginf(weighted).all():
        return np.full(blocks + 1, np.nan)
    carried = 10 ** (weighted - weighted.max())
    shares: Logs = carried / carried.sum()
    return shares


@dataclass
class _Way:
    """One of a block's two ways: what it gave, and the leaf that the rest of the net went on with in its place."""

    out: Tensor
    leaf: Tensor


@dataclass
class _Passage:
    """One block of the tape: the leaf that it started from in place of what ``arrived``, and its two ways."""

    arrived: Tensor
    start: Tensor
    branch: _Way = field(init=False)
    shortcut: _Way = field(init=False)


class Tape(AbstractContextManager["Tape"]):
    """A forward pass cut into pieces at the ends of every branch and shortcut, so that each can go back alone.

    A cut is a leaf of equal value in place of the tensor; the pass computes the same bits with and without it.
    """

    def __init__(self, net: nn.Module) -> None:
        self.blocks: list[_Passage] = []
        self._modules = [module for module in net.modules() if isinstance(module, ResidualBlock)]
        self._hooks = ExitStack()

    def __enter__(self) -> "Tape":
        for block in self._modules:
            assert block.shortcut is not None
            for handle in (
                block.register_forward_pre_hook(self._enter),
                block.drop.register_forward_hook(self._leave_branch),
                block.shortcut.register_forward_hook(self._leave_shortcut),
            ):
                self._hooks.callback(handle.remove)
        return self

    def __exit__(self, *_error: object) -> None:
        self._hooks.close()

    def end(self, images: Tensor, loss: Tensor) -> None:
        """What the first piece starts from, and what the last one ends in."""
        self.images, self.loss = images, loss

    def _enter(self, _block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = inputs
        self.blocks.append(_Passage(arrived=x, start=_leaf(x)))
        return (self.blocks[-1].start,)

    def _leave_branch(self, _module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        self.blocks[-1].branch = _cut(out)
        return self.blocks[-1].branch.leaf

    def _leave_shortcut(self, _module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        self.blocks[-1].shortcut = _cut(out)
        return self.blocks[-1].shortcut.leaf

    def gradient(self, chosen: Collection[int]) -> tuple[Tensor, float]:
        """The gradient at the images through the branches of the ``chosen`` blocks and the shortcuts of the others.

        As a tensor of norm 1 and the natural logarithm of its norm: that of hundreds of branches is no float32. The
        logarithm of zero is -inf.
        """
        end, gradient, size = self.loss, None, 0.0
        for number in reversed(range(len(self.blocks))):
            passage = self.blocks[number]
            way = passage.branch if number in chosen else passage.shortcut
            gradient = _back(way.out, passage.start, _back(end, way.leaf, gradient))
            gradient, norm = _normalised(gradient)
            size += log(norm) if norm else -inf
            end = passage.arrived
        gradient, norm = _normalised(_back(end, self.images, gradient))
        return gradient, size + (log(norm) if norm else -inf)

    def log_gradient(self, chosen: Collection[int]) -> float:
        """log10 of the norm of ``gradient``: -inf for zero, NaN for a gradient that is not finite."""
        return self.gradient(chosen)[1] / log(10)


def _cut(out: Tensor) -> _Way:
    # An identity hands on its input; the sum needs a tensor of its own to tell both ways apart.
    return _Way(out=out, leaf=_leaf(out))


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _back(end: Tensor, start: Tensor, gradient: Tensor | None) -> Tensor:
    (found,) = torch.autograd.grad(end, start, gradient, retain_graph=True)
    return found


def _normalised(gradient: Tensor) -> tuple[Tensor, float]:
    """The gradient at norm 1, and its norm. A zero stays; what is not finite has the norm NaN."""
    norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
    if not isfinite(norm):
        return gradient, float("nan")
    return (gradient / norm if norm else gradient), norm


def record(net: nn.Module, images: Tensor, labels: Tensor) -> Tape:
    """The tape of one batch. Raises ``ConfigError`` for a network that is not made of blocks with shortcuts."""
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    if not blocks or any(block.shortcut is None for block in blocks):
        raise ConfigError(
            f"{type(net).__name__} has no shortcuts here, so there is one path through it, of full length; "
            "give a residual network"
        )
    if any(isinstance(module, SegmentedStage) for module in net.modules()):
        raise ConfigError("a network under checkpoint_blocks forgets its pieces; load it again without")
    state = {name: tensor.detach() for name, tensor in net.named_parameters()}
    state |= {name: buffer.clone() for name, buffer in net.named_buffers()}
    images = _leaf(images)
    with eval_mode(net, batch_norms=True), torch.enable_grad(), Tape(net) as tape:
        tape.end(images, F.cross_entropy(functional_call(net, state, (images,)), labels))
    return tape
