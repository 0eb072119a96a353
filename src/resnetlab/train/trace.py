"""What is measured of a network while it is trained, and when."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import torch
from torch import nn

from resnetlab.records.gradients import GradientMoment


@dataclass(kw_only=True)
class Trace:
    """``moments`` are what ``measure`` said of the network after 1, 2, 4, 8 … steps of the run: log2 of its steps.

    ``measure`` is given the network that is kept and the number of steps done, and must leave the network, its
    gradients and the random state as they were. Of several ranks each calls it at the same steps, so the ranks may
    speak with each other in it. ``steps`` are those of the whole run, once it has ended.
    """

    measure: Callable[[nn.Module, int], GradientMoment] | None = None
    moments: list[GradientMoment] = field(default_factory=list)
    steps: int = 0

    def look(self, net: nn.Module, step: int) -> float:
        """Measure ``net`` where it is time to, and then only wait for the device; the seconds that it took."""
        if self.measure is None or step & (step - 1):
            return 0.0
        device = next(net.parameters()).device
        if device.type == "cuda":
            # The steps that are queued are training's own time.
            torch.cuda.synchronize(device)
        started = perf_counter()
        # A compiled net would keep a graph for this batch, and might take it for training's smaller ones too.
        with torch.compiler.set_stance("force_eager"):
            self.moments.append(self.measure(net, step))
        return perf_counter() - started
