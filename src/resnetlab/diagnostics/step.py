"""How far does one step of the optimizer move each block? ‖W' - W‖/‖W‖, block by block."""

from copy import deepcopy
from dataclasses import replace

from torch import nn
from torch.nn import functional as F

from resnetlab.diagnostics.context import Context
from resnetlab.diagnostics.load import DiagnosedNet
from resnetlab.diagnostics.probes import recompute_activations, repeatable
from resnetlab.records.by_depth import StepResult
from resnetlab.records.diagnosis import Diagnosis, Finding, NetResult
from resnetlab.train.config import TrainConfig
from resnetlab.train.gradients import largest, relative_changes, weights_by_block
from resnetlab.train.optim import make_optimizer

COMPARED = ("initial", "plain")

RULE = (
    "A copy of the network takes one step on one batch, in training mode: the optimizer of its run, at the highest "
    "rate of its schedule, with its weight decay and clipping, and with no step before it, so a momentum begins at "
    "this gradient. For each block ‖W' - W‖/‖W‖ over its convolutions and matrices. The verdict is the "
    "largest of them: at 1 and above a step replaces what the block was; below, no threshold says how large it may be."
)


def applies(_net: DiagnosedNet, _context: Context) -> None:
    """Every network can take a step."""


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """The relative change of every block by one step of the run's optimizer, or without a run of the default one."""
    config = TrainConfig() if net.recipe is None else net.recipe.training
    images, labels = context.batch
    copied = deepcopy(recompute_activations(net.net)).train()
    before = {name: [weight.detach().clone() for weight in group] for name, group in weights_by_block(copied).items()}
    optimizer = make_optimizer(copied, config)
    with repeatable(context.config.seed):
        F.cross_entropy(copied(images), labels).backward()  # type: ignore[no-untyped-call]
    if config.clip_norm is not None:
        nn.utils.clip_grad_norm_(copied.parameters(), config.clip_norm)
    optimizer.step()
    whole, blocks = relative_changes(before, weights_by_block(copied))
    found = StepResult(
        n=len(labels), optimizer=config.optimizer, lr=config.lr, assumed=net.run is None, whole=whole, blocks=blocks
    )
    return replace(result, step=found)


def judge(result: StepResult) -> str:
    """The largest change of a block by ``RULE``."""
    most = largest(result.blocks.values())
    return "broken" if most is None else f"{most:.2g} in the block that moves most"


def explain(diagnosis: Diagnosis) -> Finding:
    """How far a step moves the net, and those that it is compared with."""
    assert diagnosis.net.step is not None
    found = diagnosis.net.step
    most = largest(found.blocks.values())
    advice = []
    if most is not None and most >= 1:
        advice.append(
            "One step moves a block by more than its own size: a lower rate, a warm-up, or clipping (--clip-norm 1)."
        )
    nets = (diagnosis.net, diagnosis.initial, diagnosis.plain)
    sentences = [_sentence(one, one.step) for one in nets if one and one.step]
    return Finding(analysis="step", verdict=judge(found), sentences=sentences, advice=advice, rule=RULE)


def _sentence(net: NetResult, result: StepResult) -> str:
    by = f"{result.optimizer} at a rate of {result.lr:g}{', which is assumed,' if result.assumed else ''}"
    known = {name: value for name, value in result.blocks.items() if value is not None}
    if result.whole is None or not known:
        return f"{net.label}: a step of {by} gives what is no finite number, or starts from zero."
    low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    return (
        f"{net.label}: a step of {by} moves all weights by {result.whole:.2g} of their norm, {high} by "
        f"{known[high]:.2g} and {low} by {known[low]:.2g}."
    )
