"""What changes while a network is trained: to a checkpoint, and back from one."""

from dataclasses import dataclass, field
from math import inf

import numpy as np
import torch
from torch import Tensor, nn

from resnetlab.core.errors import CheckpointError, one_line
from resnetlab.records.run import EpochRecord
from resnetlab.train.checkpoint import Checkpoint, RunSettings
from resnetlab.train.distributed import sum_over_ranks, world
from resnetlab.train.gradients import Trace
from resnetlab.train.optim import Ema


@dataclass(kw_only=True)
class TrainingState:
    """A run between two steps.

    - ``net`` is trained; ``ema``, where it is on, follows it.
    - ``history`` are the epochs that have ended; of the one under way ``step`` steps are done. ``losses`` and ``wrong``
      hold the loss and the number of wrong answers of each: of this rank's share, or after a resume those of all ranks
      with the leading one.
    - ``trace`` holds what was measured of the network on the way.
    - ``warm_since`` is the step, over the whole run, at which ``warmup_until_error`` was reached.
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: Ema | None
    losses: Tensor
    wrong: Tensor
    trace: Trace = field(default_factory=Trace)
    history: list[EpochRecord] = field(default_factory=list)
    step: int = 0
    warm_since: int | None = None
    seconds: float = 0.0

    @property
    def eval_net(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average where there is one."""
        return self.net if self.ema is None else self.ema.net

    def is_finite(self) -> bool:
        """Whether all weights and statistics are finite numbers."""
        nets = dict.fromkeys((self.net, self.eval_net))
        values = [value for net in nets for value in net.state_dict().values() if value.numel() and not is_whole(value)]
        # The largest size of each is not finite where one number is not; a device is waited for once.
        return not values or bool(
            torch.stack([one.double() for one in torch._foreach_norm(values, inf)]).isfinite().all()
        )

    def count(self, number: int, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a micro-batch to step ``number`` of the epoch: its share of the loss, and its wrong answers.

        ``labels`` are ``(B,)``, or ``(B, K)`` where they are mixed, and then the largest is right.
        """
        answers, target = logits.argmax(dim=1), labels if labels.dim() == 1 else labels.argmax(dim=1)
        if self.losses.is_cpu:
            # In numpy, which takes a quarter of the time for so few numbers.
            self.losses.numpy()[number] += loss.item()
            self.wrong.numpy()[number] += np.count_nonzero(answers.numpy() != target.numpy())
        else:
            self.losses[number].add_(loss.detach())
            self.wrong[number].add_((answers != target).sum())

    def end_epoch(self, record: EpochRecord) -> None:
        """Take the epoch into the history and begin the next one."""
        self.history.append(record)
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget the steps of the epoch before."""
        self.step, self.seconds = 0, 0.0
        self.losses.zero_()
        self.wrong.zero_()

    def to_checkpoint(self, environment: dict[str, object], settings: RunSettings) -> Checkpoint:
        """The state as a checkpoint, from which ``restore`` resumes bit for bit.

        Within an epoch every rank calls this: their losses and counts are summed.
        """
        training = {
            f"optimizer/{name}/{slot}": value
            for name, parameter in self.net.named_parameters()
            for slot, value in self.optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor)
        }
        if self.ema is not None:
            training |= {f"raw/{name}": value for name, value in self.net.state_dict().items()}
        if self.step:
            counts = {"epoch/losses": self.losses, "epoch/wrong": self.wrong}
            training |= {name: sum_over_ranks(values[: self.step].clone()) for name, values in counts.items()}
        return Checkpoint(
            model=self.eval_net.state_dict(),
            training=training,
            history=list(self.history),
            moments=list(self.trace.moments),
            step=self.step,
            warm_since=self.warm_since,
            seconds=self.seconds,
            scaler=self.scaler.state_dict(),
            environment=environment,
            settings=settings,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take everything from a checkpoint. Raises ``CheckpointError`` where the network or the run is another."""
        groups = self._named_groups(checkpoint)
        if bool(groups["raw"]) != (self.ema is not None):
            raise CheckpointError(f"{checkpoint.origin} was made {'with' if groups['raw'] else 'without'} ema")
        restore_model(self.net, groups["raw"] or checkpoint.model, checkpoint)
        if self.ema is not None:
            restore_model(self.ema.net, checkpoint.model, checkpoint)
        restore_optimizer(self.net, self.optimizer, groups["optimizer"], checkpoint)
        self.scaler.load_state_dict(checkpoint.scaler)
        self.history, self.step, self.warm_since = list(checkpoint.history), checkpoint.step, checkpoint.warm_since
        self.trace.moments, self.seconds = list(checkpoint.moments), checkpoint.seconds
        self._restore_epoch(groups["epoch"], checkpoint)

    def _named_groups(self, checkpoint: Checkpoint) -> dict[str, dict[str, Tensor]]:
        groups: dict[str, dict[str, Tensor]] = {"optimizer": {}, "raw": {}, "epoch": {}}
        for key, value in checkpoint.training.items():
            group, _, name = key.partition("/")
            if group not in groups:
                raise CheckpointError(f"{checkpoint.origin} holds {key!r}, which this version does not know")
            groups[group][name] = value
        return groups

    def _restore_epoch(self, tensors: dict[str, Tensor], checkpoint: Checkpoint) -> None:
        self.losses.zero_()
        self.wrong.zero_()
        for name, target in (("losses", self.losses), ("wrong", self.wrong)):
            values = tensors.get(name, target.new_zeros(0))
            if len(values) != checkpoint.step or checkpoint.step > len(target):
                raise CheckpointError(f"{checkpoint.origin} is in step {checkpoint.step} of an epoch of another length")
            # Sums over the ranks: the leading one takes them, the others start from 0.
            target[: checkpoint.step] = values.to(target.device) if world().leads else 0


def is_whole(values: Tensor) -> bool:
    """Whether the numbers are whole ones, which are always finite."""
    return not (values.is_floating_point() or values.is_complex())


def restore_model(net: nn.Module, tensors: dict[str, Tensor], checkpoint: Checkpoint) -> None:
    """Load parameters and buffers. Raises ``CheckpointError`` where the network is another one."""
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.origin} holds another network: {one_line(error)}") from error


def restore_optimizer(
    net: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], checkpoint: Checkpoint
) -> None:
    """Load the optimizer's state of every parameter, in the parameter's own memory format."""
    parameters = dict(net.named_parameters())
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        if name not in parameters:
            raise CheckpointError(f"{checkpoint.origin} holds the optimizer state of {name}, which this network lacks")
        parameter = parameters[name]
        # A step counter is one number on the CPU; all else has the parameter's shape.
        like = parameter if value.shape == parameter.shape else value
        optimizer.state[parameter][slot] = torch.empty_like(like, requires_grad=False).copy_(value)
