"""A network at rest: what is measured there depends on no chance, and leaves nothing behind."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def at_rest(net: nn.Module, batch_norms: bool = False) -> Iterator[None]:
    """Eval mode within a ``with``, and each module's own mode behind it: parts of a net may be frozen.

    With ``batch_norms`` these alone take the statistics of the batch, as in training, while nothing is dropped; their
    running statistics then move, unless the pass is made on copies.
    """
    modes = [(module, module.training) for module in net.modules()]
    for module, _ in modes:
        module.training = batch_norms and isinstance(module, nn.modules.batchnorm._BatchNorm)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
