"""What every block of a network does while it computes: what goes in, what each part gives, what flows back.

A probe changes nothing: outputs, gradients and statistics are the same to the bit. It keeps a few numbers of each
tensor, on the tensor's device; they cross to the CPU in one transfer when the statistics are asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from math import isfinite
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from resnetlab.core.errors import ConfigError
from resnetlab.core.randomness import derive_seed
from resnetlab.diagnostics.context import DEEP, Context
from resnetlab.diagnostics.load import DiagnosedNet
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.classifier import Classifier
from resnetlab.models.recompute import recompute_blocks, segment_length
from resnetlab.models.shortcuts import IdentityShortcut
from resnetlab.records.diagnosis import BlockStatistics, NetResult
from resnetlab.records.gradients import judge
from resnetlab.train.gradients import block_gradients

SAFE = (1e-12, 1e15)
"""Norms between these are right in float32: no square on the way overflowed, none that matters was lost."""


def norm(tensor: Tensor) -> Tensor:
    """‖tensor‖, L2, as a float64 number on the tensor's device, to about 1e-7 of its value."""
    tensor = tensor.detach()
    # A GPU converts while it reads; on a CPU the converted copy would cost thirty times the sum.
    if tensor.dtype == torch.float32 and tensor.device.type == "cpu":
        rows = torch.linalg.vector_norm(tensor.flatten(2) if tensor.dim() > 2 else tensor, dim=-1)
        total: Tensor = torch.linalg.vector_norm(rows, dtype=torch.float64)
        if SAFE[0] < float(total) < SAFE[1]:
            return total
    exact: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return exact


def mean_cosine(x: Tensor, y: Tensor) -> Tensor:
    """The cosine between the images of ``x`` and those of ``y``, both ``(N, …)``, averaged; 0 where one is zero."""
    x, y = x.detach().flatten(1), y.detach().flatten(1)
    if x.device.type == "cpu":
        norms = torch.linalg.vector_norm(x, dim=1).double() * torch.linalg.vector_norm(y, dim=1).double()
        if bool(((norms > SAFE[0]) & (norms < SAFE[1])).all()):
            mean: Tensor = (torch.linalg.vecdot(x, y).double() / norms).mean()
            return mean
    return torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=1, eps=1e-300).mean()


def std(tensor: Tensor) -> Tensor:
    """The standard deviation of all values."""
    return tensor.detach().std(correction=0)


def zero_shares(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The share of channels of ``(N, C, …)`` that are zero in every image, at every place, and that of all values."""
    alive = tensor.detach().sign().abs_().flatten(2).sum(dim=2) if tensor.dim() > 2 else (tensor.detach() != 0).float()
    places = tensor[0, 0].numel()
    return (alive.sum(dim=0) == 0).double().mean(), 1 - alive.double().mean() / places


_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)

Hook = Callable[..., Any]


class Probe(AbstractContextManager["Probe"]):
    """Measures the blocks of ``net`` within a ``with``: those of the last forward and backward pass in it.

    >>> with Probe(net) as probe:
    ...     loss_of(net(images)).backward()
    >>> probe.statistics()

    Raises ``ConfigError`` for a network that holds no ``ResidualBlock``.
    """

    def __init__(self, net: nn.Module) -> None:
        self._blocks = [(name, module) for name, module in net.named_modules() if isinstance(module, ResidualBlock)]
        if not self._blocks:
            raise ConfigError(
                f"{type(net).__name__} holds no ResidualBlock that could be measured; build its blocks as "
                "resnetlab.models.blocks.ResidualBlock(branch, shortcut), with shortcut None for a plain one"
            )
        self._numbers: dict[tuple[str, str], Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for name, block in self._blocks:
            _Watch(name, block, self._numbers).attach(self._handles)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def statistics(self) -> list[BlockStatistics]:
        """The numbers of every block, from the input on."""
        keys = list(self._numbers)
        # Numbers of one pass may come from several dtypes; float64 holds them all.
        values = torch.stack([self._numbers[key].double() for key in keys]).tolist() if keys else []
        known = {key: value if isfinite(value) else None for key, value in zip(keys, values, strict=True)}
        return [_statistics(name, block, known) for name, block in self._blocks]


class _Watch:
    """The hooks of one block. A view of what branch and shortcut share is handed to each of them, so that the gradient
    that comes back through either can be told from that of the other.

    What they share is x; where the shape changes in pre-activation order it is p(x), which both read.
    """

    def __init__(self, name: str, block: ResidualBlock, numbers: dict[tuple[str, str], Tensor]) -> None:
        self.name = name
        self.block = block
        self.numbers = numbers
        self.input: Tensor | None = None

    def attach(self, handles: list[RemovableHandle]) -> None:
        block = self.block
        handles.append(block.register_forward_pre_hook(self._enter))
        handles.append(block.register_forward_hook(self._leave))
        whole = block.shortcut is None or isinstance(block.shortcut, IdentityShortcut)
        entrance = block.preactivation if whole else block.branch
        handles.append(entrance.register_forward_pre_hook(self._view("gradient_branch")))
        # In pre-activation order the ReLU stands before the branch, and what leaves the block is a sum.
        before = isinstance(block.activation, nn.Identity) and not isinstance(block.preactivation, nn.Identity)
        handles.append((block.preactivation if before else block).register_forward_hook(self._count_zeros))
        handles.append(block.drop.register_forward_hook(self._norm_of("branch")))
        if block.shortcut is not None:
            handles.append(block.shortcut.register_forward_pre_hook(self._view("gradient_shortcut")))
            handles.append(block.shortcut.register_forward_hook(self._norm_of("shortcut")))
        if block.gate is not None:
            # After those of branch and shortcut, whose norms it replaces by those of what is added.
            handles.append(block.gate.register_forward_hook(self._keep_weighed))
        norms = [module for module in block.branch.children() if isinstance(module, _NORMS)]
        for number, module in enumerate(norms or [block.branch]):
            handles.append(module.register_forward_hook(self._std_of(f"response {number}")))

    def _keep(self, what: str, value: Tensor) -> None:
        self.numbers[self.name, what] = value.detach()

    def _keep_weighed(self, _gate: nn.Module, _inputs: tuple[Tensor, ...], weighed: tuple[Tensor, Tensor]) -> None:
        for what, tensor in zip(("branch", "shortcut"), weighed, strict=True):
            self._keep_norm(what, tensor)

    def _keep_gradient(self, what: str, tensor: Tensor) -> None:
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: self._keep_norm(what, gradient))  # type: ignore[no-untyped-call]

    def _keep_norm(self, what: str, tensor: Tensor) -> None:
        size = norm(tensor)
        self._keep(f"{what}_norm", size)
        self._keep(f"{what}_rms", size / tensor.numel() ** 0.5)

    def _enter(self, _block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = inputs
        x = x.view_as(x)
        # Without its graph: a checkpointed net ends a second pass before the block is left, and would keep it all.
        self.input = x.detach()
        self._keep_norm("input", x)
        self._keep_gradient("gradient_in", x)
        return (x,)

    def _leave(self, _block: nn.Module, _inputs: tuple[Tensor, ...], y: Tensor) -> None:
        x, self.input = self.input, None
        assert x is not None
        self._keep_gradient("gradient_out", y)
        self._keep_norm("output", y)
        if x.shape == y.shape:
            self._keep("cosine", mean_cosine(x, y))

    def _count_zeros(self, _module: nn.Module, _inputs: tuple[Tensor, ...], activated: Tensor) -> None:
        dead, zero = zero_shares(activated)
        self._keep("dead", dead)
        self._keep("zeros", zero)

    def _view(self, what: str) -> Hook:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (x,) = inputs
            x = x.view_as(x)
            self._keep_gradient(what, x)
            return (x,)

        return hook

    def _norm_of(self, what: str) -> Hook:
        return lambda _module, _inputs, output: self._keep_norm(what, output)

    def _std_of(self, what: str) -> Hook:
        return lambda _module, _inputs, output: self._keep(what, std(output))


def _statistics(name: str, block: ResidualBlock, known: dict[tuple[str, str], float | None]) -> BlockStatistics:
    def get(what: str) -> float | None:
        return known.get((name, what))

    beside = get("input_norm") if block.shortcut is None else get("shortcut_norm")
    branch = get("branch_norm")
    responses = [value for (owner, what), value in known.items() if owner == name and what.startswith("response ")]
    return BlockStatistics(
        block=name,
        input_norm=get("input_norm"),
        branch_norm=branch,
        shortcut_norm=get("shortcut_norm"),
        ratio=branch / beside if branch is not None and beside else None,
        responses=responses,
        cosine=get("cosine"),
        dead=get("dead"),
        zeros=get("zeros"),
        input_rms=get("input_rms"),
        output_rms=get("output_rms"),
        gradient_in=get("gradient_in_norm"),
        gradient_branch=get("gradient_branch_norm"),
        gradient_shortcut=get("gradient_shortcut_norm"),
        gradient_out=get("gradient_out_norm"),
        gradient_in_rms=get("gradient_in_rms"),
        gradient_out_rms=get("gradient_out_rms"),
    )


def measure_blocks(net: DiagnosedNet, context: Context, result: NetResult) -> NetResult:
    """``result`` with the gradients and the statistics of every block, from one pass forward and back in training mode.

    A result that has them already is given back. A network without blocks has gradients alone, layer by layer.
    """
    if result.gradients:
        return result
    module = recompute_activations(net.net)
    with repeatable(context.config.seed), Probe(module) if net.blocks else nullcontext() as probe:
        gradients = block_gradients(module, *context.batch, context.config.seed)
    blocks = probe.statistics() if probe else []
    return replace(result, gradients=gradients, flow=judge(gradients), blocks=blocks)


def recompute_activations(net: nn.Module) -> nn.Module:
    """The network itself, or of a very deep one a copy that saves memory at the cost of a second forward pass."""
    depths = [len(list(stage.children())) for stage in net.stages] if isinstance(net, Classifier) else []
    return recompute_blocks(deepcopy(net), segment_length(max(depths))) if sum(depths) > DEEP else net


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """What a network draws itself, such as dropout, is a function of the seed; torch's own state is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "diagnosis"))
        yield
