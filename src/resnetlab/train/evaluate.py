"""Loss and error of a network on a split."""

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from resnetlab.data.arrays import ImageData
from resnetlab.data.loader import Loader
from resnetlab.records import Metrics

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
def evaluate_batches(net: nn.Module, loader: Loader) -> Metrics:
    """Mean cross-entropy and top-1 error over every sample of the split, in eval mode; the mode is put back.

    A NaN among the logits counts as an error. Sums stay on the device until the end.
    """
    training = net.training
    net.eval()
    device = loader.split.labels.device
    loss, wrong = torch.zeros((), device=device, dtype=torch.float64), torch.zeros((), device=device, dtype=torch.int64)
    for images, labels in loader.in_order():
        logits = net(images)
        loss += F.cross_entropy(logits, labels, reduction="sum")
        # argmax gives the place of a NaN, which could pass for the right class.
        wrong += ((logits.argmax(dim=1) != labels) | logits.isnan().any(dim=1)).sum()
    net.train(training)
    n = len(loader.split)
    return Metrics(loss=loss.item() / n, error=wrong.item() / n, n=n)
