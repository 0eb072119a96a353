"""A trained network made deeper by blocks that are the identity, and trained on: the deeper net that is no worse by
construction (He et al. 2015, arXiv:1512.03385, §1)."""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from resnetlab.data.dataset import ImageData
from resnetlab.data.loader import Loader
from resnetlab.diagnostics.context import Context, OnProgress
from resnetlab.diagnostics.load import UNTRAINED, DiagnosedNet
from resnetlab.diagnostics.sentences import epochs
from resnetlab.models.surgery import deepen
from resnetlab.records.diagnosis import Diagnosis, Finding, IdentityResult, NetResult
from resnetlab.train.callbacks import NoCallback, StepStats
from resnetlab.train.config import TrainConfig
from resnetlab.train.evaluate import BATCH, eval_mode, evaluate
from resnetlab.train.loop import fit

COMPARED = ()

RULE = (
    "Every logit of every image of the split must be bit-identical before and after deepening: equal, else not equal. "
    "The errors after training are those of one run each; their difference is only a hint."
)


def applies(net: DiagnosedNet, _context: Context) -> str | None:
    """A trained network is needed, with shortcuts, and a recipe to train it on by."""
    if not net.blocks:
        return "it has no blocks"
    if not net.trained:
        return UNTRAINED
    if not net.has_shortcuts:
        return "a plain block is no identity; give a net with shortcuts"
    return "no recipe says how it was trained" if net.recipe is None else None


def measure(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """A deepened copy of the network: its outputs beside those before, and both trained on in the same way.

    Raises ``ConfigError`` where ``deepen`` does.
    """
    assert net.recipe is not None
    config, data = context.config, net.data
    deeper = deepen(net.net, config.stage, config.added, seed=config.seed)
    equal, before = equal_logits(net.net, deeper, data), evaluate(net.net, data)
    training = further(net.recipe.training, config.epochs)
    ends = []
    for name, one in (("the deeper net", deeper), ("the net of the old depth", deepcopy(net.net))):
        with context.progress(f"training {name} on") as on_progress:
            history = fit(one, data, training, seed=config.seed, callback=_Steps(on_progress))
        ends.append(history[-1].reported)
    found = IdentityResult(
        stage=config.stage,
        added=config.added,
        blocks=sum(len(list(part.children())) for part in deeper.stages),
        equal=equal,
        epochs=config.epochs,
        before=before,
        deeper=ends[0],
        same=ends[1],
    )
    return replace(result, identity=found)


def judge(result: IdentityResult) -> str:
    """The verdict by ``RULE``."""
    return "equal" if result.equal else "not equal"


def explain(diagnosis: Diagnosis) -> Finding:
    """What the identity blocks changed, and what training on made of them."""
    found = diagnosis.net.identity
    assert found is not None
    before, deeper, same = found.before, found.deeper, found.same
    bits = "every logit stayed equal to the bit" if found.equal else "some logit changed"
    sentences = [
        f"{found.added} identity blocks behind stage {found.stage} make {found.blocks} in all; {bits} "
        f"(n = {before.n:,} {diagnosis.split} images, error {before.error:.2%}).",
        f"Trained on for {epochs(found.epochs)}, the deeper net has {deeper.error:.2%} error and loss "
        f"{deeper.loss:.4f}, the net of the old depth {same.error:.2%} and {same.loss:.4f} "
        f"(n = {deeper.n:,}, one run each).",
    ]
    return Finding(analysis="identity", verdict=judge(found), sentences=sentences, advice=[], rule=RULE)


def equal_logits(first: nn.Module, second: nn.Module, data: ImageData) -> bool:
    """Whether two networks in eval mode give the same bits for every image of the reported split."""
    device = next(first.parameters()).device
    with torch.inference_mode(), eval_mode(first), eval_mode(second):
        batches = Loader(data.reported.to(device), data.normalisation, BATCH).in_order()
        return all(torch.equal(first(images), second(images)) for images, _ in batches)


def further(training: TrainConfig, epochs: int) -> TrainConfig:
    """How a trained network is trained on: by a tenth of its rate, falling to 0 over ``epochs``, all else plain."""
    return TrainConfig(
        epochs=epochs,
        lr=training.lr / 10,
        schedule="cosine",
        evaluate_train="end",
        batch_size=training.batch_size,
        optimizer=training.optimizer,
        weight_decay=training.weight_decay,
        augment=training.augment,
        device=training.device,
    )


class _Steps(NoCallback):
    """Tells how many steps of a training are done."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.on_progress = on_progress

    def on_step(self, step: int, steps: int, stats: StepStats | None) -> None:  # noqa: ARG002
        self.on_progress(step, steps)
