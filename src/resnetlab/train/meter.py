"""The pulse of a run: loss, error and speed a few times a second, without waiting for the device."""

from time import perf_counter

import torch
from torch import Tensor

from resnetlab.train.callbacks import Pulse

EVERY = 0.5
"""Seconds between two pulses."""


class Meter:
    """Means over the steps since the last pulse, the first time since ``done`` steps of the epoch.

    A step has so many ``pictures`` over all ``ranks``; loss and error are those of this rank's share of them.

    On a cuda device the sums are copied to the CPU behind the steps that are queued, and read one pulse later.
    """

    def __init__(self, pictures: int, *, ranks: int = 1, done: int = 0) -> None:
        self.pictures, self.ranks = pictures, ranks
        self.told, self.since = done, perf_counter()
        self.waiting: tuple[torch.cuda.Event, Tensor, float] | None = None

    def pulse(self, losses: Tensor, wrong: Tensor, done: int) -> Pulse | None:
        """The pulse after ``done`` steps of an epoch, whose losses and numbers of wrong answers are given; None where
        the last one was just before."""
        now = perf_counter()
        if now - self.since < EVERY or done <= self.told:
            return None
        steps = slice(self.told, done)
        share = self.pictures // self.ranks
        means = torch.stack([losses[steps].mean(), wrong[steps].double().mean() / share])
        speed = (done - self.told) * self.pictures / (now - self.since)
        self.told, self.since = done, now
        if not means.is_cuda:
            return _pulse(means, speed)
        before, event = self.waiting, torch.cuda.Event()  # type: ignore[no-untyped-call]
        host = means.to("cpu", non_blocking=True)
        event.record()
        self.waiting = (event, host, speed)
        return _pulse(before[1], before[2]) if before and before[0].query() else None  # type: ignore[no-untyped-call]


def _pulse(means: Tensor, speed: float) -> Pulse:
    loss, error = means.tolist()
    return Pulse(loss=loss, error=error, images_per_second=speed)
