"""The memory of a training step, predicted on the meta device before anything is allocated."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from resnetlab.core.errors import ConfigError, require, require_choice
from resnetlab.models.classifier import Classifier
from resnetlab.models.config import NetConfig
from resnetlab.models.init import build
from resnetlab.models.recompute import SegmentedStage, recompute_blocks
from resnetlab.models.summary import saved_bytes

PlannedOptimizer = Literal["sgd", "adamw"]

STEP_COUNTER_BYTES = 4
"""AdamW counts its steps for each parameter, in one float32."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """A training step of ``batch`` images, in bytes.

    - ``parameters`` and ``buffers`` are the network, ``gradients`` one of each parameter, ``optimizer_state`` the
      momentum of sgd or the two moments of adamw.
    - ``saved_activations`` is what autograd keeps between forward and backward, the images among it; the loss adds a
      few bytes for each class.
    - ``recomputed`` is the most that is computed a second time at once: a segment's activations, with checkpointing.
    - ``multiply_adds`` are those of convolutions and matrices, forward, recomputed and backward.
    """

    batch: int
    parameters: int
    buffers: int
    gradients: int
    optimizer_state: int
    saved_activations: int
    recomputed: int
    multiply_adds: int

    @property
    def total(self) -> int:
        """All of these bytes together, the most that is held at once; what a layer needs while it runs comes on top."""
        network = self.parameters + self.buffers + self.gradients + self.optimizer_state
        return network + self.saved_activations + self.recomputed


def predict_memory(
    config_or_net: NetConfig | nn.Module,
    batch: int,
    checkpointing: int | None = None,
    optimizer: PlannedOptimizer = "sgd",
) -> MemoryPlan:
    """Memory and multiply-adds of one float32 training step at the configuration's ``image_size``.

    ``checkpointing`` is the number of blocks in a segment of ``recompute_blocks``; None keeps all activations. sgd
    has a momentum. Of a network only its ``config`` is read.

    Raises ``ConfigError`` for a batch below 2 (BN takes statistics over a batch) and for what has no configuration.
    """
    config = config_or_net if isinstance(config_or_net, NetConfig) else getattr(config_or_net, "config", None)
    if not isinstance(config, NetConfig):
        raise ConfigError(f"{type(config_or_net).__name__} has no config to read; give a network of create_model")
    require(batch >= 2, "batch", batch, "at least 2: BN takes statistics over a batch")
    require_choice("optimizer", optimizer, get_args(PlannedOptimizer))
    net = build(config, seed=0, device="meta")
    assert isinstance(net, Classifier)
    if checkpointing is not None:
        recompute_blocks(net, checkpointing)
    image = (config.in_chans, config.image_size, config.image_size)
    parameters = _bytes(list(net.parameters()))
    moments = 1 if optimizer == "sgd" else 2
    counters = 0 if optimizer == "sgd" else STEP_COUNTER_BYTES * len(list(net.parameters()))
    return MemoryPlan(
        batch=batch,
        parameters=parameters,
        buffers=_bytes(list(net.buffers())),
        gradients=parameters,
        optimizer_state=moments * parameters + counters,
        saved_activations=saved_bytes(net, image, batch),
        recomputed=recomputed_bytes(net, image, batch),
        multiply_adds=step_multiply_adds(net, image, batch),
    )


def recomputed_bytes(net: Classifier, image: tuple[int, ...], batch: int) -> int:
    """The most bytes that autograd keeps of a segment beside its input; 0 without checkpointing."""
    most = 0
    with torch.no_grad():
        x = net.stem(net.prepare(torch.empty(batch, *image, device="meta")))
        for stage in net.stages:
            for segment in stage.segments() if isinstance(stage, SegmentedStage) else ():
                with torch.enable_grad():
                    kept = saved_bytes(segment, tuple(x.shape[1:]), batch, with_input=False)
                most = max(most, kept)
                x = segment(x)
    return most


def step_multiply_adds(net: nn.Module, image: tuple[int, ...], batch: int) -> int:
    """Multiply-adds of forward and backward, half of what torch's flop counter gives; the network is on meta."""
    with FlopCounterMode(display=False) as counter:
        net.train()(torch.empty(batch, *image, device="meta")).sum().backward()
    return int(counter.get_total_flops()) // 2


def _bytes(tensors: list[Tensor] | list[nn.Parameter]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
