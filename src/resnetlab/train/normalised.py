"""Optimizers whose step does not depend on the size of the gradients: by layer (LARS, normalised SGD), by sign.

Each keeps one ``momentum_buffer`` for a parameter, none where the momentum is 0.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

TRUST = 0.02
"""η of LARS, that of NVIDIA's apex (``LARC``). With the 0.001 of You et al. the rates that train are 20 times as high,
and so are the steps of norms and biases, which LARS does not adapt."""


class _ByTensor(torch.optim.Optimizer, ABC):
    """Updates parameters in place by ``update``: on a CPU one at a time, which holds one copy of a gradient, else all
    of a group in one call for each operation."""

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step from the gradients that are there; a parameter without one stays as it is."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights: list[Tensor] = [weight for weight in group["params"] if weight.grad is not None]
            for together in [[weight] for weight in weights] if all(w.is_cpu for w in weights) else [weights]:
                self.update(together, [weight.grad for weight in together if weight.grad is not None], group)
        return loss

    @abstractmethod
    def update(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """Change the weights of one group in place; the gradients stay as they are."""

    def buffers(self, weights: list[Tensor]) -> list[Tensor]:
        """The momentum of each, zeros at first."""
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight, requires_grad=False)
        return [self.state[weight]["momentum_buffer"] for weight in weights]


class LARS(_ByTensor):
    """SGD whose rate for a layer is η ‖w‖ / (‖g‖ + β ‖w‖), so that each layer changes by a share of itself.

    v ← m v + lr · λ · (g + β w), w ← w - v, for weight decay β, momentum m and λ that ratio; λ is 1 where w or g is 0,
    and in groups whose ``adapts`` is off, as is usual for norms and biases: their steps do depend on the gradient's
    size. *You et al. 2017, arXiv:1708.03888, eq. 6 and algorithm 1*; η is ``TRUST``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = TRUST,
        adapts: bool = True,
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, trust=trust, adapts=adapts)

    def update(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """As the class says."""
        decay = group["weight_decay"]
        steps = list(torch._foreach_add(gradients, weights, alpha=decay))
        if group["adapts"]:
            ours, theirs = torch.stack(norms(weights)), torch.stack(norms(gradients))
            ratios = group["trust"] * ours / (theirs + decay * ours)
            ratios = torch.where((ours > 0) & (theirs > 0), ratios, 1.0)
            torch._foreach_mul_(steps, list(ratios.unbind()))
        torch._foreach_mul_(steps, group["lr"])
        if group["momentum"]:
            buffers = self.buffers(weights)
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, steps)
            steps = buffers
        torch._foreach_sub_(weights, steps)


class NormalisedSGD(_ByTensor):
    """SGD on u = g / ‖g‖, for each tensor of parameters by itself, norms and biases too; 0 where g is 0.

    v ← m v + u, w ← (1 - lr · weight decay) w - lr · d, where d is v, or u + m v with ``nesterov``. The decay is
    decoupled, so that no step depends on the gradient's size. *Yu et al. 2017, arXiv:1707.04822, algorithm 1*, in the
    form that does not multiply by ‖w‖: tensors that begin at zero, such as biases, would stay there.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)

    def update(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """As the class says."""
        units = scaled(gradients)
        torch._foreach_div_(units, positive(torch._foreach_norm(units)))
        steps = units
        if group["momentum"]:
            buffers = self.buffers(weights)
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, units)
            steps = buffers
            if group["nesterov"]:
                torch._foreach_add_(units, buffers, alpha=group["momentum"])
                steps = units
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, steps, alpha=-group["lr"])


class SignSGD(_ByTensor):
    """Every weight moves by the rate, against the sign of the gradient's moving average (Signum).

    v ← m v + (1 - m) g, w ← (1 - lr · weight decay) w - lr · sign(v), with sign(0) = 0; momentum 0 gives signSGD. The
    decay is decoupled. *Bernstein et al. 2018, arXiv:1802.04434, algorithms 1 and 2*.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def update(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        """As the class says."""
        averages = gradients
        if group["momentum"]:
            averages = self.buffers(weights)
            torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, torch._foreach_sign(averages), alpha=-group["lr"])


def norms(tensors: list[Tensor]) -> list[Tensor]:
    """The 2-norm of each; of tiny numbers too, whose squares float32 does not hold (below 10⁻²², as in deep plain
    nets)."""
    largest = torch._foreach_norm(tensors, float("inf"))
    return list(torch._foreach_mul(torch._foreach_norm(scaled(tensors)), largest))


def scaled(tensors: list[Tensor]) -> list[Tensor]:
    """Each over its largest number; zeros stay."""
    return list(torch._foreach_div(tensors, positive(torch._foreach_norm(tensors, float("inf")))))


def positive(sizes: Sequence[Tensor]) -> list[Tensor]:
    """The sizes, with 1 for 0: what may be divided by."""
    return [torch.where(size == 0, 1.0, size) for size in sizes]
