"""Loss and error of a network on a split."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from resnetlab.data.dataset import ImageData
from resnetlab.data.loader import Loader
from resnetlab.records.run import Metrics
from resnetlab.train.config import Precision
from resnetlab.train.distributed import sum_over_ranks
from resnetlab.train.precision import autocast

BATCH = 256
"""Pictures at a time where only an evaluation asks."""


def evaluate(net: nn.Module, data: ImageData, which: Literal["train", "test"] = "test") -> Metrics:
    """Mean cross-entropy and top-1 error of ``net`` on a split of ``data``, on the device that it lies on.

    Pictures are standardised by the training statistics, as ``fit`` does it.
    """
    device = next(net.parameters()).device
    split = (data.train if which == "train" else data.test).to(device)
    return evaluate_batches(net, Loader(split, data.normalisation, BATCH))


@torch.inference_mode()
def evaluate_batches(
    net: nn.Module, loader: Loader, precision: Precision = "fp32", on_batch: Callable[[], None] | None = None
) -> Metrics:
    """Mean cross-entropy and top-1 error over every sample of the split, in eval mode; the mode is put back.

    A NaN among the logits counts as an error. ``on_batch`` is called before every batch, and may raise. Sums stay on
    the device until the end. Several ranks share the batches; each batch has a place of its own in what they add up,
    so that every number of ranks gives the same bits.
    """
    training = net.training
    net.eval()
    batches = -(-len(loader) // loader.batch_size)
    losses = torch.zeros(batches, device=loader.device, dtype=torch.float64)
    wrong = torch.zeros(batches, device=loader.device, dtype=torch.int64)
    for number, (images, labels) in enumerate(loader.in_order()):
        if on_batch:
            on_batch()
        with autocast(precision, loader.device):
            logits = net(images).float()
        place = loader.rank + number * loader.ranks
        losses[place] = F.cross_entropy(logits, labels, reduction="sum")
        # argmax gives the place of a NaN, which could pass for the right class.
        wrong[place] = ((logits.argmax(dim=1) != labels) | logits.isnan().any(dim=1)).sum()
    net.train(training)
    loss, errors = sum_over_ranks(losses).sum().item(), sum_over_ranks(wrong).sum().item()
    return Metrics(loss=loss / len(loader), error=errors / len(loader), n=len(loader))
