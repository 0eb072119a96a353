"""LSUV: weights scaled layer by layer until the variance of each layer's output is 1 (Mishkin & Matas 2015)."""

import torch
from torch import Tensor, nn

from resnetlab.core.randomness import generator
from resnetlab.models.config import NetConfig
from resnetlab.models.starts import Layer

TOLERANCE = 0.01
"""How far from 1 the variance of a layer's output may be."""

ROUNDS = 10
"""The most scalings of one layer. Without a bias one is enough, but for rounding."""

VALUES = 2**14
"""Pixels in the batch that variances are taken over: 16 images of 32 pixels, and at least ``LEAST`` of any size."""

LEAST = 8


def lsuv_images(config: NetConfig, seed: int) -> Tensor:
    """The batch ``(N, in_chans, S, S)`` of standard normal images that ``lsuv`` measures with."""
    side = config.image_size
    number = max(LEAST, VALUES // side**2)
    draws = generator(seed, "lsuv", "images").standard_normal((number, config.in_chans, side, side), dtype="float32")
    return torch.from_numpy(draws)


@torch.no_grad()
def scale_to_unit_variance(net: nn.Module, images: Tensor) -> None:
    """Scale the weight of every convolution and matrix, in the order in which they run: their outputs get variance 1.

    Mishkin & Matas 2015, arXiv:1511.06422, Algorithm 1, in one pass: a layer is scaled as soon as it has run, and hands
    on the output of its scaled weight. Batch norm takes the batch's statistics, as in training; nothing is dropped. A
    layer whose output is constant or not finite is left as it is.
    """

    def scale(layer: Layer, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for _ in range(ROUNDS):
            variance = float(output.var(correction=0))
            if not 0 < variance < torch.inf or abs(variance - 1) <= TOLERANCE:
                break
            layer.weight.div_(variance**0.5)
            output = layer.forward(*given)
        return output

    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    handles = [module.register_forward_hook(scale) for module in net.modules() if isinstance(module, Layer)]
    training = net.training
    net.eval()
    for norm in norms:
        norm.train()
    net(images)
    for handle in handles:
        handle.remove()
    for norm in norms:
        norm.reset_running_stats()
    net.train(training)
