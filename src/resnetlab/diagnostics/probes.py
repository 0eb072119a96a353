"""One look into every block of a network while it computes: what goes in, what each part gives, what flows back.

Nothing is changed by looking: outputs, gradients and statistics are the same to the bit. What is kept of a tensor is a
few numbers, on its own device; they cross to the CPU in one transfer when the readings are asked for.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from math import isfinite
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from resnetlab.diagnostics import amounts
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.shortcuts import IdentityShortcut
from resnetlab.records.diagnosis import BlockReading

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)

Hook = Callable[..., Any]


class Probe(AbstractContextManager["Probe"]):
    """Watches the blocks of ``net`` within a ``with``; the last forward and backward pass is what it tells of.

    >>> with Probe(net) as probe:
    ...     loss_of(net(images)).backward()
    >>> probe.readings()
    """

    def __init__(self, net: nn.Module) -> None:
        self._blocks = [(name, module) for name, module in net.named_modules() if isinstance(module, ResidualBlock)]
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

    def readings(self) -> list[BlockReading]:
        """A reading of every block, from the input on."""
        keys = list(self._numbers)
        # Numbers of one pass may come from several dtypes; float64 holds them all.
        values = torch.stack([self._numbers[key].double() for key in keys]).tolist() if keys else []
        known = {key: value if isfinite(value) else None for key, value in zip(keys, values, strict=True)}
        return [_reading(name, block, known) for name, block in self._blocks]


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
        before = not isinstance(block.preactivation, nn.Identity)
        handles.append((block.preactivation if before else block).register_forward_hook(self._count_zeros))
        handles.append(block.drop.register_forward_hook(self._norm_of("branch")))
        if block.shortcut is not None:
            handles.append(block.shortcut.register_forward_pre_hook(self._view("gradient_shortcut")))
            handles.append(block.shortcut.register_forward_hook(self._norm_of("shortcut")))
        norms = [module for module in block.branch.children() if isinstance(module, _NORMS)]
        for number, module in enumerate(norms or [block.branch]):
            handles.append(module.register_forward_hook(self._spread_of(f"response {number}")))

    def _keep(self, what: str, value: Tensor) -> None:
        self.numbers[self.name, what] = value.detach()

    def _keep_gradient(self, what: str, tensor: Tensor) -> None:
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: self._keep_norm(what, gradient))  # type: ignore[no-untyped-call]

    def _keep_norm(self, what: str, tensor: Tensor) -> None:
        norm = amounts.norm(tensor)
        self._keep(f"{what}_norm", norm)
        self._keep(f"{what}_rms", norm / tensor.numel() ** 0.5)

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
            self._keep("cosine", amounts.cosine(x, y))

    def _count_zeros(self, _module: nn.Module, _inputs: tuple[Tensor, ...], activated: Tensor) -> None:
        dead, zeros = amounts.zeros(activated)
        self._keep("dead", dead)
        self._keep("zeros", zeros)

    def _view(self, what: str) -> Hook:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (x,) = inputs
            x = x.view_as(x)
            self._keep_gradient(what, x)
            return (x,)

        return hook

    def _norm_of(self, what: str) -> Hook:
        return lambda _module, _inputs, output: self._keep_norm(what, output)

    def _spread_of(self, what: str) -> Hook:
        return lambda _module, _inputs, output: self._keep(what, amounts.spread(output))


def _reading(name: str, block: ResidualBlock, known: dict[tuple[str, str], float | None]) -> BlockReading:
    def get(what: str) -> float | None:
        return known.get((name, what))

    beside = get("input_norm") if block.shortcut is None else get("shortcut_norm")
    branch = get("branch_norm")
    responses = [value for (owner, what), value in known.items() if owner == name and what.startswith("response ")]
    return BlockReading(
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
