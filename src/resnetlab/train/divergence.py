"""Where a loss stopped being a finite number: the step and the layer in which it began."""

from collections.abc import Callable
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from resnetlab.core.errors import DivergedError

ADVICE = "try a lower --lr, a warm-up, or a net with shortcuts and norms"


def find_origin(net: nn.Module, images: Tensor, step: int) -> str:
    """In words, where the loss of the step (counted from 1) is first not finite, found by one more forward pass.

    - images that are not finite themselves,
    - weights that are not: their gradient or their update was not finite in the step before. A gradient travels from
      the loss towards the images and takes what lies on its way along, so it began in the last such layer,
    - a layer that gives something not finite from finite images and weights, the first in the order of computation,
    - the loss itself.

    Statistics of norms stay as they are.
    """
    if not _finite(images):
        return f"the images of step {step} are not finite"
    broken = broken_weights(net)
    if broken:
        return f"{broken[-1]} is not finite since the update of step {step - 1}"
    buffers = [name for name, buffer in net.named_buffers() if not _finite(buffer)]
    first = _first_broken_layer(net, images)
    if first is not None:
        return f"it began in the output of {first}"
    if buffers:
        return f"{buffers[0]} is not finite"
    return "it began in the loss: the network's outputs are finite"


def check_finite(losses: Tensor, first_step: int) -> None:
    """Raise ``DivergedError`` with the first step whose loss is not a finite number."""
    broken = (~losses.isfinite()).nonzero()
    if len(broken):
        step = int(broken[0])
        raise DivergedError(f"the loss became {losses[step].item()} at step {first_step + step + 1}; {ADVICE}")


def broken_weights(net: nn.Module) -> list[str]:
    """Names of the parameters that are not finite, from input to head. A device is waited for once."""
    named = {name: value.detach() for name, value in net.named_parameters() if value.numel()}
    if not named:
        return []
    # The largest size of each is not finite where one number is not.
    sizes = torch.stack([size.double() for size in torch._foreach_norm(list(named.values()), inf)])
    return [name for name, finite in zip(named, sizes.isfinite().tolist(), strict=True) if not finite]


def forget_broken_statistics(net: nn.Module) -> None:
    """Reset norms whose running statistics are not finite, in place: one such batch poisons them for good."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not all(map(_finite, module.buffers())):
            module.reset_running_stats()


@torch.no_grad()
def _first_broken_layer(net: nn.Module, images: Tensor) -> str | None:
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not _finite(output):
                found.append(name)

        return hook

    leaves = [(name, module) for name, module in net.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        # Copies take the statistics of this pass.
        functional_call(net, {name: buffer.clone() for name, buffer in net.named_buffers()}, (images,))
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _finite(values: Tensor) -> bool:
    return not values.is_floating_point() or bool(values.isfinite().all())
