"""How the gradients of a run change over training, on one batch: before it, between its steps, and after it."""

from typing import TYPE_CHECKING

from resnetlab.records.gradients import BlockGradient, GradientMoment

if TYPE_CHECKING:
    from torch import Tensor, nn


class GradientTrace:
    """‖∇W‖ and ‖W‖ by block of the network that a run keeps, on the ``batch`` of images ``(N, C, H, W)`` and labels.

    Plain nets with BN explode at initialisation, by a constant factor a block, and no longer after the first steps
    (Yang et al. 2019, arXiv:1902.08129): so the moments lie close together at first. A run of T steps takes
    log2(T) + 3 passes of the batch forward and backward for it, in float32, of the whole batch on every rank.
    """

    def __init__(self, net: "nn.Module", batch: "tuple[Tensor, Tensor]", seed: int) -> None:
        from resnetlab.train.trace import Trace

        self.batch, self.seed = batch, seed
        self.start = self.measure(net)
        self.between: Trace = Trace(measure=self._moment)

    def measure(self, net: "nn.Module") -> list[BlockGradient]:
        """The gradients of ``net`` as it is now, by block."""
        from resnetlab.train.gradients import block_gradients

        return block_gradients(net, *self.batch, self.seed)

    def moments(self, end: list[BlockGradient] | None) -> list[GradientMoment]:
        """The whole trace in order; ``end`` are the gradients after the last step of a run that has come to it."""
        from resnetlab.records.gradients import moment

        found = [moment(0, self.start), *self.between.moments]
        if end is None:
            return found
        last = self.between.steps
        return [one for one in found if one.step < last] + [moment(last, end)]

    def _moment(self, net: "nn.Module", step: int) -> GradientMoment:
        from resnetlab.records.gradients import moment

        return moment(step, self.measure(net))
