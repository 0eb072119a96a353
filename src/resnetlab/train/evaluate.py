"""Loss and error of a network on a split."""

import torch
from torch import nn
from torch.nn import functional as F

from resnetlab.data.loader import Loader
from resnetlab.records import Metrics


@torch.inference_mode()
def evaluate(net: nn.Module, loader: Loader) -> Metrics:
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
