"""What is measured on a network that is asked about: passes, lesions, the grid of settings, and a deeper copy."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import TYPE_CHECKING

from resnetlab.core.randomness import derive_seed, generator
from resnetlab.diagnostics.load import Subject, has_shortcuts
from resnetlab.records.diagnosis import IdentityReading, LesionReading, NetReading, Part, SignalReading
from resnetlab.train.callbacks import NoCallback, StepStats
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import fitted_config

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from resnetlab.data.dataset import ImageData
    from resnetlab.records.run import Metrics

    Batch = tuple[Tensor, Tensor]

OnProgress = Callable[[int, int], None]
Progress = Callable[[str], AbstractContextManager[OnProgress]]
"""Told how far the work of that name is: a context that gives ``on_progress(done, total)``."""

DEEP = 100
"""Blocks beyond which a pass keeps the inputs of segments alone and computes the rest again, to save memory."""


def unwatched(_name: str) -> AbstractContextManager[OnProgress]:
    """Progress that nobody is told of."""
    return nullcontext(lambda _done, _total: None)


def first_images(data: "ImageData", n: int, seed: int, device: "torch.device") -> "Batch":
    """The batch that all but lesions are read from: ``n`` training images as they are, chosen by the seed."""
    from resnetlab.data.loader import Loader

    return next(Loader(data.train.to(device), data.normalisation, n).shuffled(seed, epoch=1))


def read_net(
    subject: Subject, parts: list[Part], batch: "Batch", *, seed: int, images: int, progress: Progress
) -> NetReading:
    """The readings of one network: one pass forward and back for gradients and residuals, and its lesions."""
    from resnetlab.diagnostics.probes import Probe
    from resnetlab.records import gradients as flow
    from resnetlab.train.gradients import block_gradients

    gradients, blocks = [], []
    if {"gradients", "residuals"} & {*parts}:
        net = sparing(subject.net)
        with repeatable(seed), Probe(net) as probe:
            gradients = block_gradients(net, *batch, seed)
        blocks = probe.readings()
    return NetReading(
        model=subject.name,
        state=subject.state,
        parameters=sum(parameter.numel() for parameter in subject.net.parameters()),
        plain=not has_shortcuts(subject.net),
        gradients=gradients,
        flow=flow.judge(gradients) if gradients else None,
        blocks=blocks,
        lesion=read_lesion(subject, seed, images, progress) if "lesion" in parts else None,
    )


def read_lesion(subject: Subject, seed: int, images: int, progress: Progress) -> LesionReading | None:
    """Lesions of a trained network on test images that the seed chooses; None where no block can be dropped."""
    import torch

    from resnetlab.data.loader import Loader
    from resnetlab.diagnostics.lesion import lesion, movable_blocks
    from resnetlab.train.evaluate import BATCH, evaluate_batches

    if not movable_blocks(subject.net)[0]:
        return None
    data, device = subject.data, next(subject.net.parameters()).device
    order = generator(seed, "lesion pictures").permutation(len(data.reported))[:images]
    only = torch.from_numpy(order).sort().values
    test = Loader(data.reported.to(device), data.normalisation, BATCH, only=only)
    counts = data.reported.labels.cpu()[only].bincount()
    with progress(f"lesions of {subject.recipe.model}") as on_progress:
        return lesion(
            subject.net,
            lambda net: evaluate_batches(net, test),
            n=len(only),
            chance=1 - counts.max().item() / len(only),
            seed=seed,
            on_progress=on_progress,
        )


def read_grid(subject: Subject, batch: "Batch", progress: Progress) -> list[SignalReading]:
    """Signal and gradient before training in every setting around that of the network."""
    from resnetlab.diagnostics.signal import read_signal
    from resnetlab.diagnostics.signal_grid import signal_grid
    from resnetlab.models.init import build

    grid = signal_grid(fitted_config(subject.recipe, subject.data))
    found = []
    with progress("signal before training") as on_progress:
        for done, (words, config) in enumerate(grid, start=1):
            net = build(config, seed=subject.recipe.seed, device=str(batch[0].device))
            with repeatable(subject.recipe.seed):
                found.append(read_signal(sparing(net), *batch, words))
            on_progress(done, len(grid))
    return found


def read_identity(
    subject: Subject, stage: int, added: int, *, epochs: int, seed: int, progress: Progress
) -> IdentityReading:
    """A deepened copy of the network: its outputs beside those before, and both trained on in the same way.

    Raises ``ConfigError`` where ``deepen`` does.
    """
    from resnetlab.models.surgery import deepen
    from resnetlab.train.evaluate import evaluate
    from resnetlab.train.loop import fit

    net, data = subject.net, subject.data
    deeper = deepen(net, stage, added, seed=seed)
    equal, before = equal_logits(net, deeper, data), evaluate(net, data)
    blocks = sum(len(list(part.children())) for part in deeper.stages)
    config = further(subject.recipe.training, epochs)
    ends: list[Metrics] = []
    for name, one in (("the deeper net", deeper), ("the net of the old depth", deepcopy(net))):
        with progress(f"training {name} on") as on_progress:
            history = fit(one, data, config, seed=seed, callback=_Steps(on_progress))
        ends.append(history[-1].test)
    return IdentityReading(
        stage=stage,
        added=added,
        blocks=blocks,
        equal=equal,
        epochs=epochs,
        before=before,
        deeper=ends[0],
        same=ends[1],
    )


def equal_logits(first: "nn.Module", second: "nn.Module", data: "ImageData") -> bool:
    """Whether two networks in eval mode give the same bits for every test image."""
    import torch

    from resnetlab.data.loader import Loader
    from resnetlab.train.evaluate import BATCH

    device = next(first.parameters()).device
    with torch.inference_mode():
        batches = Loader(data.reported.to(device), data.normalisation, BATCH).in_order()
        return all(torch.equal(first.eval()(images), second.eval()(images)) for images, _ in batches)


def further(training: TrainConfig, epochs: int) -> TrainConfig:
    """How a trained network is trained on: by a tenth of its rate, falling to 0 over ``epochs``, all else plain."""
    kept = {name: getattr(training, name) for name in ("batch_size", "optimizer", "weight_decay", "augment", "device")}
    return TrainConfig(epochs=epochs, lr=training.lr / 10, schedule="cosine", evaluate_train="end", **kept)


def sparing(net: "nn.Module") -> "nn.Module":
    """The network itself, or of a very deep one a copy that saves memory at the cost of a second forward pass."""
    from resnetlab.models.classifier import Classifier
    from resnetlab.models.recompute import recompute_blocks, segment_length

    depths = [len(list(stage.children())) for stage in net.stages] if isinstance(net, Classifier) else []
    return recompute_blocks(deepcopy(net), segment_length(max(depths))) if sum(depths) > DEEP else net


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """What a network draws itself, such as dropout, is a function of the seed; torch's own state is left alone."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "diagnosis"))
        yield


class _Steps(NoCallback):
    """Tells how many steps of a training are done."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.on_progress = on_progress

    def on_step(self, step: int, steps: int, stats: StepStats | None) -> None:  # noqa: ARG002
        self.on_progress(step, steps)
