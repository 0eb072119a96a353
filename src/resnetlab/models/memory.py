"""The memory of training, predicted with tensors that have sizes and no content, before anything is allocated."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resnetlab.core.errors import ConfigError, require, require_choice
from resnetlab.models.classifier import Classifier
from resnetlab.models.config import NetConfig
from resnetlab.models.init import build
from resnetlab.models.recompute import SegmentedStage, recompute_blocks
from resnetlab.models.summary import no_memory, on_multiply_adds, saved_bytes, take_place

PlannedOptimizer = Literal["sgd", "adamw", "lars", "normalised_sgd", "signsgd"]
PlannedPrecision = Literal["fp32", "bf16", "fp16"]
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}

STEP_COUNTER_BYTES = 4
"""AdamW counts its steps for each parameter, in one float32."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Training in steps of ``batch`` images, in bytes.

    - ``parameters`` and ``buffers`` are the network, ``gradients`` one of each parameter, ``optimizer_state`` the
      two moments of adamw or the momentum of the others, ``average`` the second network of an exponential moving
      average.
    - ``saved_activations`` is what autograd keeps of a micro-batch between forward and backward, the images among it.
    - ``recomputed`` is the most that is computed a second time at once: a segment's activations, with checkpointing.
    - ``step`` is the most that a step holds at once beside network, state and average: activations, gradients, and what
      is alive between two layers. ``trace`` is the same for a pass of the gradients' trace; 0 without one.
    - ``multiply_adds`` are those of convolutions and matrices, forward, recomputed and backward.
    """

    batch: int
    parameters: int
    buffers: int
    gradients: int
    optimizer_state: int
    average: int
    saved_activations: int
    recomputed: int
    step: int
    trace: int
    multiply_adds: int

    @property
    def total(self) -> int:
        """The most that is held at once; what a layer needs inside itself while it runs comes on top."""
        held = self.parameters + self.buffers + self.optimizer_state + self.average
        return held + max(self.step, self.trace)


def predict_memory(
    config_or_net: NetConfig | nn.Module,
    batch: int,
    checkpointing: int | None = None,
    optimizer: PlannedOptimizer = "sgd",
    *,
    accumulate: int = 1,
    precision: PlannedPrecision = "fp32",
    ema: bool = False,
    traced: int = 0,
) -> MemoryPlan:
    """Memory and multiply-adds of a training step at the configuration's ``image_size``, in so many micro-batches.

    ``checkpointing`` is the number of blocks in a segment of ``recompute_blocks``; None keeps all activations. All
    optimizers but adamw have a momentum. ``traced`` are the images on which a run measures its gradients now and then,
    in float32. Of a network only its ``config`` is read.

    Raises ``ConfigError`` for a micro-batch below 2 (BN takes statistics over a batch), one that is not whole, and for
    what has no configuration.
    """
    config = config_or_net if isinstance(config_or_net, NetConfig) else getattr(config_or_net, "config", None)
    if not isinstance(config, NetConfig):
        raise ConfigError(f"{type(config_or_net).__name__} has no config to read; give a network of create_model")
    require(batch >= 2, "batch", batch, "at least 2: BN takes statistics over a batch")
    shares = 1 <= accumulate <= batch // 2 and batch % accumulate == 0
    require(shares, "accumulate", accumulate, f"a number that divides the batch of {batch} into parts of 2 or more")
    require_choice("optimizer", optimizer, get_args(PlannedOptimizer))
    require_choice("precision", precision, get_args(PlannedPrecision))
    net = build(config, seed=0, device="meta")
    assert isinstance(net, Classifier)
    if checkpointing is not None:
        recompute_blocks(net, checkpointing)
    image = (config.in_chans, config.image_size, config.image_size)
    part = batch // accumulate
    parameters, buffers = _bytes(list(net.parameters())), _bytes(list(net.buffers()))
    moments = 2 if optimizer == "adamw" else 1
    counters = STEP_COUNTER_BYTES * len(list(net.parameters())) if optimizer == "adamw" else 0
    passes = min(accumulate, 2)
    with no_memory():
        take_place(net)
        with _cast(precision):
            saved, recomputed = saved_bytes(net, image, part), recomputed_bytes(net, image, part)
        with counted_multiply_adds(net) as counts:
            step = peak_bytes(net, image, part, passes, precision)
        trace = peak_bytes(net, image, traced, 1, "fp32") if traced else 0
    return MemoryPlan(
        batch=batch,
        parameters=parameters,
        buffers=buffers,
        gradients=parameters,
        optimizer_state=moments * parameters + counters,
        average=parameters + buffers if ema else 0,
        saved_activations=saved,
        recomputed=recomputed,
        step=step,
        trace=trace,
        multiply_adds=accumulate * sum(counts) // passes,
    )


def peak_bytes(net: nn.Module, image: tuple[int, ...], batch: int, parts: int, precision: PlannedPrecision) -> int:
    """The most bytes that are alive at once in ``parts`` passes forward and backward, the network left out.

    ``net`` holds fake tensors on the CPU, and its gradients add up.
    """
    with LiveBytes() as live:
        for _ in range(parts):
            images, labels = torch.empty(batch, *image), torch.empty(batch, dtype=torch.int64)
            with _cast(precision):
                loss = F.cross_entropy(net.train()(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            del loss
    net.zero_grad(set_to_none=True)
    most: int = live.most
    return most


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, counts the bytes of tensors that are made: ``now`` alive, ``most`` of them at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self.sizes:
            return
        self.sizes[storage._cdata] = storage.nbytes()
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, number: int) -> None:
        self.now -= self.sizes.pop(number)


def _cast(precision: PlannedPrecision) -> AbstractContextManager[object]:
    return nullcontext() if precision == "fp32" else torch.autocast("cpu", dtype=HALVES[precision])


def recomputed_bytes(net: Classifier, image: tuple[int, ...], batch: int) -> int:
    """The most bytes that autograd keeps of a segment beside its input; 0 without checkpointing."""
    most = 0
    with torch.no_grad():
        x = net.stem(net.prepare(torch.empty(batch, *image, device=next(net.parameters()).device)))
        for stage in net.stages:
            for segment in stage.segments() if isinstance(stage, SegmentedStage) else ():
                with torch.enable_grad():
                    kept = saved_bytes(segment, tuple(x.shape[1:]), batch, with_input=False)
                most = max(most, kept)
                x = segment(x)
    return most


@contextmanager
def counted_multiply_adds(net: nn.Module) -> Iterator[list[int]]:
    """Inside, the list grows by the multiply-adds of every convolution and matrix: the gradient of the weights takes as
    many as the pass forward, and so does that of the input."""
    counts: list[int] = []
    recomputing = True

    def begin(_net: nn.Module, _given: object) -> None:
        nonlocal recomputing
        recomputing = False

    def end(_net: nn.Module, _given: object, _output: object) -> None:
        nonlocal recomputing
        recomputing = True

    def note(given: Tensor, count: int) -> None:
        # What runs a second time is gone back through only once.
        counts.append(count * (1 if recomputing else 2 + given.requires_grad))

    handles = [net.register_forward_pre_hook(begin), net.register_forward_hook(end)]
    with on_multiply_adds(net, note):
        yield counts
    for handle in handles:
        handle.remove()


def _bytes(tensors: list[Tensor] | list[nn.Parameter]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
