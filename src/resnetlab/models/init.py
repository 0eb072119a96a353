"""Initial weights, each drawn from a stream keyed by (seed, parameter name).

A plain and a residual net give their shared parameters the same names, so they start from equal values, whatever the
order of layers, the device and the number of parameters.
"""

from functools import cache, partial
from math import sqrt

import torch
from torch import Tensor, nn

from resnetlab.core.errors import require
from resnetlab.core.randomness import generator
from resnetlab.models.blocks import ResidualBlock, last_scale
from resnetlab.models.config import DIRAC_NOISE, Init, NetConfig, ResidualConfig
from resnetlab.models.gates import start_gates
from resnetlab.models.layers import Multiplier, ScalarAffine, ScalarBias
from resnetlab.models.lsuv import lsuv_images, scale_to_unit_variance
from resnetlab.models.starts import Layer, Place, start_weight

HEAD = "head"


def build(config: NetConfig, *, seed: int, device: str = "cpu") -> nn.Module:
    """The network of ``config`` with its initial weights, made without touching torch's global random state.

    It is made on the meta device first, so that torch's own initial weights are never drawn. ``device="meta"`` stops
    there: shapes without memory.
    """
    with torch.device("meta"):
        net = config.make()
    if config.init == "looks_linear":
        _require_even_widths(net)
    if device == "meta":
        return net
    _materialise(net, torch.device(device))
    blocks = sum(isinstance(module, ResidualBlock) for module in net.modules())
    noise = config.dirac_noise if isinstance(config, ResidualConfig) else DIRAC_NOISE
    scale = config.residual_scale(blocks)
    initialise(net, seed=seed, init=config.init, residual_scale=scale, dirac_noise=noise)
    if config.init == "lsuv":
        scale_to_unit_variance(net, lsuv_images(config, seed).to(device))
    return net


@cache
def check_network(config: NetConfig) -> None:
    """Raise ``ConfigError`` for a network that cannot be built; each configuration is tried once in a process."""
    build(config, seed=0, device="meta")


def _materialise(net: nn.Module, device: torch.device) -> None:
    """Give the network memory in place of meta tensors, as ``to_empty`` does, which loads torch's symbolic shapes too:
    as long as a quarter of torch itself."""
    for module in net.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                module._parameters[name] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)


@torch.no_grad()
def initialise(
    net: nn.Module, *, seed: int, init: Init = "he", residual_scale: float = 1.0, dirac_noise: float = DIRAC_NOISE
) -> None:
    """Initial weights in place: W as ``NetConfig`` says of ``init``, b = 0, scale 1 and shift 0 in norms.

    W ~ N(0, σ²) with σ of ``deviation`` for he and xavier; the others are those of ``start_weight``, and the scales of
    lsuv are found by ``scale_to_unit_variance``.

    ``residual_scale`` multiplies the last scale of every branch: 0 starts each block as the identity, 1/√L keeps the
    signal of L blocks bounded.

    Weights are drawn as float32, so a float64 net starts from the very same numbers.
    """
    places = layer_places(net)
    for name, module in net.named_modules():
        if isinstance(module, Layer):
            if init in ("he", "xavier"):
                _draw_normal(module.weight, deviation(module, init, head=name == HEAD), seed, f"{name}.weight")
            else:
                normal = partial(_standard_normal, seed, f"{name}.weight")
                module.weight.copy_(start_weight(module, init, places[name], normal, dirac_noise))
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
            module.reset_parameters()
        elif isinstance(module, Multiplier):
            module.weight.fill_(module.start)
        if isinstance(module, ScalarBias | ScalarAffine):
            module.bias.zero_()
    start_gates(net)
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    for block in blocks:
        scale = getattr(block.branch, "scale", None)
        if isinstance(scale, Multiplier) and scale.start == 1:
            start_fixup(block.branch, len(blocks))
        if residual_scale != 1.0:
            last_scale(block.branch).mul_(residual_scale)


def layer_places(net: nn.Module) -> dict[str, Place]:
    """Where in the network each convolution and matrix stands, by its name, from the input on."""
    names = [name for name, module in net.named_modules() if isinstance(module, Layer)]
    return {name: _place(name, first=number == 0) for number, name in enumerate(names)}


def _place(name: str, *, first: bool) -> Place:
    if name == HEAD:
        return "head"
    if first:
        return "first"
    # Layers of the branch itself: squeeze-and-excitation lies deeper.
    return "branch" if name.rpartition(".")[0].endswith(".branch") else "other"


def _require_even_widths(net: nn.Module) -> None:
    layers = {name: module for name, module in net.named_modules() if isinstance(module, Layer)}
    for name, place in layer_places(net).items():
        outputs, inputs = layers[name].weight.shape[:2]
        widths = {"head": (inputs,), "first": (outputs,)}.get(place, (outputs, inputs))
        for width in widths:
            require(width % 2 == 0, f"width of {name}", width, "even with init='looks_linear': half of it is mirrored")


def deviation(layer: nn.Conv2d | nn.Linear, init: Init, *, head: bool = False) -> float:
    """σ of the weights of a layer.

    ``"he"``: σ² = 2 / fan_in, He et al. 2015, arXiv:1502.01852, eq. 10, which takes a ReLU behind the weights; behind
    the head there is none, and it gets 1 / fan_in.

    ``"xavier"``: σ² = 2 / (fan_in + fan_out), Glorot & Bengio 2010 (AISTATS 9:249), eq. 12, for activations that are
    linear around 0; a ReLU halves the signal behind it. Their eq. 16 draws evenly, with the same σ.
    """
    fan_in = layer.weight[0].numel()
    if init == "he":
        return sqrt((1.0 if head else 2.0) / fan_in)
    # In a grouped convolution an input reaches only the outputs of its own group.
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return sqrt(2 / (fan_in + layer.weight[:, 0].numel() / groups))


def start_fixup(branch: nn.Module, blocks: int) -> None:
    """Zero for the last weights of a branch of m layers, L^(-1/(2m-2)) times the usual ones for those before.

    Zhang et al. 2019, arXiv:1901.09321, §2, rules 1 and 2. In place of its scalar biases (rule 3, ``"fixup_scalar"``)
    each channel has one.
    """
    *earlier, last = [module for module in branch.children() if isinstance(module, nn.Conv2d)]
    for conv in earlier:
        conv.weight.mul_(blocks ** (-1 / (2 * len(earlier))))
    last.weight.zero_()


def _draw_normal(weight: Tensor, std: float, seed: int, name: str) -> None:
    weight.copy_(_standard_normal(seed, name, weight.shape).mul_(std))


def _standard_normal(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(generator(seed, "parameter", name).standard_normal(shape, dtype="float32"))
