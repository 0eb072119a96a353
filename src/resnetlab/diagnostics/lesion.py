"""What a trained network loses with its blocks: dropped one by one, several at random, exchanged with a neighbour.

A residual net is said to be an ensemble of paths, of which most survive the loss of a block; a plain net has one path
(Veit et al. 2016, arXiv:1605.06431). Here it is measured, on the plain net as on the residual one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import isfinite
from statistics import fmean, median
from typing import Literal

from torch import nn

from resnetlab.core.errors import ConfigError
from resnetlab.core.randomness import generator
from resnetlab.diagnostics.context import Context, some_images
from resnetlab.diagnostics.load import UNTRAINED, DiagnosedNet
from resnetlab.diagnostics.sentences import NO_SHORTCUTS, some
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.surgery import drop_blocks, droppable_blocks, reorder
from resnetlab.records.diagnosis import Diagnosis, Finding, Lesion, LesionResult, NetResult
from resnetlab.records.run import Metrics
from resnetlab.train.evaluate import eval_mode, evaluate_batches

COMPARED = ("plain",)

Score = Callable[[nn.Module], Metrics]
LesionVerdict = Literal["robust", "between", "fragile", "untrained"]

ROOM, LITTLE, MUCH = 0.1, 0.1, 0.5

RULE = (
    "Each block that keeps the shape of its input is removed alone, without retraining. The rise in error is divided "
    "by the gap between the whole net's error and that of always predicting the most frequent class. The median of "
    f"this share over the blocks is at most {LITTLE:.0%}: robust; at least {MUCH:.0%}: fragile; else between. A gap "
    f"below {100 * ROOM:g} points leaves nothing to lose: untrained."
)


def applies(net: DiagnosedNet, _context: Context) -> str | None:
    """A trained network is needed, with blocks that can be dropped."""
    if not net.blocks:
        return "it has no blocks"
    if not net.trained:
        return UNTRAINED
    try:
        movable, _ = movable_blocks(net.net)
    except ConfigError as error:
        return str(error)
    return None if movable else "none of its blocks can be dropped: each changes the shape of its input, or is alone"


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """Lesions of a trained network on images of the reported split that the seed chooses."""
    config, reported = context.config, net.data.reported
    loader = some_images(net, reported, config.images, config.seed, "lesion pictures")
    n = len(loader)
    counts = reported.labels.cpu()[loader.samples].bincount()
    with eval_mode(net.net), context.progress(f"lesions of {net.model}") as on_progress:
        found = lesion(
            net.net,
            lambda changed: evaluate_batches(changed, loader),
            n=n,
            chance=1 - counts.max().item() / n,
            seed=config.seed,
            on_progress=on_progress,
        )
    return replace(result, lesion=found)


def lesion(
    net: nn.Module,
    score: Score,
    *,
    n: int,
    chance: float,
    draws: int = 3,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> LesionResult:
    """Error and loss of ``net`` whole, without each block, without k random ones (``draws`` sets for each of some
    k), and with each pair of neighbours exchanged. ``net`` is left alone; nothing is retrained.

    ``score`` measures a network on ``n`` images, of which a share of 1 - ``chance`` is of the most frequent class.
    Blocks that change the shape stay: without them the next would not fit.

    Raises ``ConfigError`` for a network without blocks that can be dropped.
    """
    movable, fixed = movable_blocks(net)
    if not movable:
        raise ConfigError("no block of this network can be dropped: each changes the shape of its input, or is alone")
    # With the first block of each stage kept, no set leaves a stage empty.
    sets = random_sets([name for name in movable if not name.endswith(".0")], draws, seed)
    pairs = neighbours(movable)
    total, done = 1 + len(movable) + len(sets) + len(pairs), 0

    def measure(blocks: Sequence[str], changed: nn.Module) -> Lesion:
        nonlocal done
        found = score(changed)
        done += 1
        if on_progress:
            on_progress(done, total)
        return Lesion(blocks=list(blocks), error=found.error, loss=found.loss if isfinite(found.loss) else None)

    return LesionResult(
        n=n,
        chance=chance,
        intact=measure([], net),
        dropped=[measure([name], drop_blocks(net, [name])) for name in movable],
        several=[measure(names, changed) for names, changed in _smaller(net, sets)],
        swapped=[measure(pair, reorder(net, [pair[1], pair[0]])) for pair in pairs],
        fixed=fixed,
    )


def judge(result: LesionResult) -> LesionVerdict:
    """The verdict by ``RULE`` on what single blocks are worth."""
    room = result.chance - result.intact.error
    if room < ROOM:
        return "untrained"
    typical = median(result.costs) / room
    if typical <= LITTLE:
        return "robust"
    return "fragile" if typical >= MUCH else "between"


def explain(diagnosis: Diagnosis) -> Finding:
    """What single blocks, sets of blocks and their order are worth."""
    net = diagnosis.net
    assert net.lesion is not None
    verdict = judge(net.lesion)
    sentences = [
        line
        for one in (net, diagnosis.plain)
        if one and one.lesion
        for line in _sentences(one.label, one.lesion, diagnosis.split)
    ]
    advice = []
    free = [change.blocks[0] for change in net.lesion.dropped if change.error <= net.lesion.intact.error]
    if free and verdict != "untrained":
        advice.append(
            f"Without {some(free)}{', each alone,' * (len(free) > 1)} the error is not higher: "
            f"resnetlab weights prune RUN --out NEW --without {free[0]} keeps the smaller net. These {diagnosis.split} "
            "images chose the block; check it on others."
        )
    if verdict == "fragile" and net.plain:
        advice.append(NO_SHORTCUTS)
    if verdict == "untrained":
        advice.append("The net predicts hardly better than guessing, so lesions show nothing: train it first.")
    return Finding(analysis="lesion", verdict=verdict, sentences=sentences, advice=advice, rule=RULE)


def _sentences(label: str, found: LesionResult, split: str) -> list[str]:
    worst = max(found.dropped, key=lambda change: change.error)
    lines = [
        f"{label}: error {found.intact.error:.2%} (n = {found.n:,} {split} images, by guessing {found.chance:.1%})"
        f"; without one block {100 * median(found.costs):+.2f} points in the median of {len(found.costs)} blocks, at "
        f"worst {100 * max(found.costs):+.2f} without {worst.blocks[0]}."
    ]
    if found.several:
        most = max(len(change.blocks) for change in found.several)
        error = fmean(change.error for change in found.several if len(change.blocks) == most)
        lines.append(f"{label}: error {error:.2%} without {most} blocks at once.")
    if found.swapped:
        error = median(change.error for change in found.swapped)
        lines.append(f"{label}: error {error:.2%} with two neighbouring blocks exchanged, in the median.")
    return lines


def movable_blocks(net: nn.Module) -> tuple[list[str], list[str]]:
    """The blocks that can be dropped, and those that cannot: they change the shape of their input, or are alone."""
    movable = droppable_blocks(net)
    names = [name for name, module in net.named_modules() if isinstance(module, ResidualBlock)]
    return movable, [name for name in names if name not in movable]


def _smaller(net: nn.Module, sets: list[list[str]]) -> Iterator[tuple[list[str], nn.Module]]:
    """The network without each set, where its family has one of those depths: a fully-connected net may have none."""
    for names in sets:
        try:
            changed = drop_blocks(net, names)
        except ConfigError:
            continue
        yield names, changed


def random_sets(movable: Sequence[str], draws: int, seed: int) -> list[list[str]]:
    """``draws`` random sets of 2, 4, 8 … blocks, up to all of them, each in the order of the network."""
    sizes = [size for size in (2**power for power in range(1, 12)) if size < len(movable)] + [len(movable)]
    sets = []
    for size in dict.fromkeys(sizes):
        # There is one set of all blocks.
        for number in range(draws if size < len(movable) else 1):
            chosen = generator(seed, "lesion", size, number).permutation(len(movable))[:size]
            sets.append([movable[index] for index in sorted(chosen.tolist())])
    return [names for names in sets if len(names) > 1]


def neighbours(movable: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of blocks that stand side by side in one stage."""

    def place(name: str) -> tuple[str, int]:
        stage, _, number = name.rpartition(".")
        return stage, int(number)

    pairs = []
    for first, second in pairwise(movable):
        (stage, number), (other, following) = place(first), place(second)
        if stage == other and following == number + 1:
            pairs.append((first, second))
    return pairs
