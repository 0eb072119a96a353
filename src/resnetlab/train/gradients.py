"""Gradients by depth: ‖∇W‖ and ‖W‖ of every block for one batch."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resnetlab.models.blocks import ResidualBlock
from resnetlab.core.randomness import derive_seed
from resnetlab.records.gradients import BlockGradient


def block_gradients(net: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> list[BlockGradient]:
    """The gradient of the mean cross-entropy with respect to the weights of each block, from input to head.

    Norms are L2 over the convolutions and matrices of the block's branch; a layer outside of blocks counts as one of
    its own. The pass is in training mode, so BN takes the statistics of the batch ``(N, C, H, W)``, and what a network
    drops at random is a function of ``seed``; of frozen weights the gradient is taken too. The network is left as it
    was: gradients, BN statistics, modes and what is frozen.
    """
    weights = _weights_by_block(net)
    flat = [weight for group in weights.values() for weight in group]
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    modes = {module: module.training for module in net.modules()}
    frozen = [parameter for parameter in net.parameters() if not parameter.requires_grad]
    net.train().requires_grad_(True)
    try:
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            torch.manual_seed(derive_seed(seed, "gradients"))
            loss = F.cross_entropy(functional_call(net, buffers, (images,)), labels)
            # Still in training mode: a checkpointed net computes parts of itself again on the way back.
            gradients = dict(zip(flat, torch.autograd.grad(loss, flat), strict=True))
    finally:
        # Mode by mode: of a net that is half frozen not every part is in training.
        for module, training in modes.items():
            module.training = training
        for parameter in frozen:
            parameter.requires_grad_(False)
    return [
        BlockGradient(
            block=name, gradient_norm=_norm([gradients[weight] for weight in group]), weight_norm=_norm(group)
        )
        for name, group in weights.items()
    ]


def _weights_by_block(net: nn.Module) -> dict[str, list[Tensor]]:
    branches = {f"{name}.branch.": name for name, module in net.named_modules() if isinstance(module, ResidualBlock)}
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in net.named_parameters():
        if parameter.dim() < 2 or ".shortcut." in name:
            continue
        block = next((block for prefix, block in branches.items() if name.startswith(prefix)), None)
        groups.setdefault(block or name.removesuffix(".weight"), []).append(parameter)
    return groups


def _norm(tensors: list[Tensor]) -> float | None:
    # In float64: the square of a gradient of 1e20 is no float32.
    norm = torch.stack([tensor.detach().double().norm() for tensor in tensors]).norm()
    return norm.item() if norm.isfinite() else None
