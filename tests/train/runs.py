"""What the tests of training share: a tiny net, a run that is cut off, and how two runs are compared."""

from dataclasses import replace

import torch
from torch import nn

from resnetlab.models.zoo import create_model
from resnetlab.records.run import EpochRecord
from resnetlab.train.callbacks import NoCallback

DYNAMO = "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
"""torch reads that attribute of what a block is given, as it compiles the block."""


def tiny_net(name: str = "cifar_resnet8", **options) -> nn.Module:
    """A net for the images of ``tests.conftest.make_data``."""
    return create_model(name, **{"in_chans": 1, "num_classes": 3} | options)


class StopAfter(NoCallback):
    """Cuts a run off as Ctrl-C would, behind the given step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, steps: int, stats) -> None:
        if step == self.step:
            raise KeyboardInterrupt


class Notes(NoCallback):
    """Keeps the notes of a run."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)


def same_tensors(first: nn.Module, second: nn.Module) -> bool:
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())


def without_time(history: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(epoch, seconds=0.0, images_per_second=None) for epoch in history]
