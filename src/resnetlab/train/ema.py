"""The moving average of a network: its weights and, unlike in many places, its norms' statistics too."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class Ema:
    """``net`` follows the trained network: each tensor e becomes d·e + (1 - d)·w after a step.

    d is the decay, but at most (1 + t) / (10 + t) at step t, so that the first weights, which are random, fade quickly.
    Counters are copied.
    """

    def __init__(self, trained: nn.Module, decay: float) -> None:
        self.net = deepcopy(trained).requires_grad_(False).eval()
        self.decay = decay
        theirs, ours = trained.state_dict(keep_vars=True), self.net.state_dict()
        pairs = [(ours[name], theirs[name]) for name in ours]
        self._averaged: list[tuple[Tensor, Tensor]] = [(e, w) for e, w in pairs if e.is_floating_point()]
        self._copied: list[tuple[Tensor, Tensor]] = [(e, w) for e, w in pairs if not e.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the trained network after ``step``, counted from 0."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([e for e, _ in self._averaged], [w for _, w in self._averaged], share)
        for e, w in self._copied:
            e.copy_(w)
