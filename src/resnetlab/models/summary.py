"""What a network costs, counted on the meta device: no weights and no memory at any depth."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm

from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.config import NetConfig
from resnetlab.models.init import build
from resnetlab.models.layers import ACTIVATIONS
from resnetlab.models.tailored import TailoredReLU

SHAPE_KEEPERS: tuple[Any, ...] = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, TailoredReLU, *ACTIVATIONS.values())
"""The modules whose output has the shape of what they are given, of the slow ones on the meta device."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One convolution, matrix or max-pool as it ran.

    ``side`` is that of its output map, or for a layer in a block, of the block's output; vectors have side 1.
    """

    name: str
    label: str
    side: int
    weighted: bool

    @property
    def on_shortcut(self) -> bool:
        """Whether it is part of a shortcut or its gate: the depth of a net does not count it."""
        return ".shortcut." in self.name or ".gate." in self.name

    @property
    def block(self) -> str:
        """The name of the block that it is part of; its own name where it is in none."""
        return re.split(r"\.(?:branch|shortcut|gate)\.", self.name)[0]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the network (stem, one stage, head) and its output shape without the batch."""

    name: str
    output: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What ``summarise`` counted.

    ``multiply_adds`` are those of convolutions and matrices for one image. ``weight_layers`` is the depth as papers
    count it, without shortcuts. ``saved_bytes`` is what autograd keeps of one more image in a training step, float32.
    """

    parameters: int
    multiply_adds: int
    weight_layers: int
    saved_bytes: int
    input: tuple[int, ...]
    stages: tuple[Stage, ...]
    layers: tuple[Layer, ...]


def summarise(config: NetConfig) -> Summary:
    """Parameters, multiply-adds, shapes and saved activations of the network, at its ``image_size``."""
    net = build(config, seed=0, device="meta")
    image = (config.in_chans, config.image_size, config.image_size)
    stages, layers = trace(net, image)
    multiply_adds = count_multiply_adds(net, image)
    with no_memory():
        take_place(net)
        saved = saved_bytes(net, image, batch=3) - saved_bytes(net, image, batch=2)
    return Summary(
        parameters=_parameters(net),
        multiply_adds=multiply_adds,
        weight_layers=sum(layer.weighted and not layer.on_shortcut for layer in layers),
        saved_bytes=saved,
        input=image,
        stages=tuple(stages),
        layers=tuple(layers),
    )


@cache
def network_cost(config: NetConfig) -> tuple[int, int]:
    """Parameters and multiply-adds of the network at its ``image_size``, counted once in a process."""
    net = build(config, seed=0, device="meta")
    return _parameters(net), count_multiply_adds(net, (config.in_chans, config.image_size, config.image_size))


def _parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def count_multiply_adds(net: nn.Module, image: tuple[int, ...]) -> int:
    """Multiply-adds of the convolutions and matrices for one image, half of what torch's flop counter gives (papers
    print this figure as FLOPs): each value that a layer gives takes one for each weight of its output."""
    counts: list[int] = []
    with (
        torch.no_grad(),
        _mode(net, training=False),
        _layers_with_weights_alone(net),
        on_multiply_adds(net, lambda _given, count: counts.append(count)),
    ):
        net(torch.empty(1, *image, device="meta"))
    return sum(counts)


@contextmanager
def on_multiply_adds(net: nn.Module, note: Callable[[Tensor, int], None]) -> Iterator[None]:
    """Inside, each pass forward of a convolution or a matrix calls ``note`` with what it is given and its
    multiply-adds: one for each weight of each value that it gives."""

    def count(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module.weight, Tensor)
        note(given[0], output.numel() * (module.weight.numel() // len(module.weight)))

    handles = [
        module.register_forward_hook(count) for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def saved_bytes(net: nn.Module, image: tuple[int, ...], batch: int, *, with_input: bool = True) -> int:
    """Bytes that autograd keeps between forward and backward: every storage once, parameters and buffers left out.

    The difference between two batch sizes is the cost of an image, free of what BN keeps once for a batch.
    ``with_input=False`` leaves the images themselves out too.
    """
    images = torch.empty(batch, *image, device=next(net.parameters()).device)
    given = (*net.parameters(), *net.buffers(), *(() if with_input else (images,)))
    own = {tensor.untyped_storage()._cdata for tensor in given}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    with _mode(net, training=True), saved_tensors_hooks(keep, lambda tensor: tensor):
        # The graph, held by the output, keeps the storages alive, so that no address is counted for two of them.
        output = net(images)
    total = sum(sizes.values())
    del output
    return total


def no_memory() -> AbstractContextManager[object]:
    """Inside, tensors on the CPU have sizes and no content, and torch remembers what each operation gives: a pass
    forward takes a fifth of what it takes on the meta device."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def take_place(net: nn.Module) -> None:
    """Inside ``no_memory``, put a tensor on the CPU in the place of each one on meta: there mixed precision is known
    to torch."""
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def trace(net: nn.Module, image: tuple[int, ...]) -> tuple[list[Stage], list[Layer]]:
    """The parts and the layers of a network in the order in which they ran, with their output shapes."""
    stages: list[Stage] = []
    layers: list[Layer] = []

    def note_stage(name: str, output: Tensor) -> None:
        stages.append(Stage(name=name, output=tuple(output.shape[1:])))

    def note_layer(name: str, module: nn.Module, output: Tensor) -> None:
        if isinstance(module, ResidualBlock):
            # Its layers have run just before it, and are the last that are noted.
            place = len(layers)
            while place and layers[place - 1].name.startswith(f"{name}."):
                place -= 1
                layers[place] = replace(layers[place], side=_side(output))
        else:
            label, weighted = _label(module)
            layers.append(Layer(name=name, label=label, side=_side(output), weighted=weighted))

    handles = [
        module.register_forward_hook(lambda _m, _i, output, name=name: note_stage(name, output))
        for name, module in _parts(net)
    ] + [
        module.register_forward_hook(lambda module, _i, output, name=name: note_layer(name, module, output))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.MaxPool2d | ResidualBlock)
    ]
    with torch.no_grad(), _mode(net, training=False), _layers_with_weights_alone(net):
        net(torch.empty(1, *image, device="meta"))
    for handle in handles:
        handle.remove()
    return stages, layers


def _parts(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in net.named_children():
        if name == "stages":
            yield from ((f"stages.{number}", stage) for number, stage in child.named_children())
        else:
            yield name, child


def _side(output: Tensor) -> int:
    return output.shape[-1] if output.dim() == 4 else 1


def _label(module: nn.Module) -> tuple[str, bool]:
    if isinstance(module, nn.Conv2d):
        stride = f"/{module.stride[0]}" if module.stride[0] > 1 else ""
        return f"{module.kernel_size[0]}×{module.kernel_size[1]} conv, {module.out_channels}{stride}", True
    if isinstance(module, nn.Linear):
        return f"fc {module.out_features}", True
    return "max-pool", False


@contextmanager
def _layers_with_weights_alone(net: nn.Module) -> Iterator[None]:
    """Inside, norms and activations give what they are given, whose shape is that of their output: on the meta device
    they take torch far longer than convolutions do."""
    same = [module for module in net.modules() if isinstance(module, SHAPE_KEEPERS)]
    for module in same:
        module.__dict__["forward"] = _unchanged
    try:
        yield
    finally:
        for module in same:
            del module.__dict__["forward"]


def _unchanged(x: Tensor) -> Tensor:
    return x


@contextmanager
def _mode(net: nn.Module, *, training: bool) -> Iterator[None]:
    before = net.training
    net.train(training)
    try:
        yield
    finally:
        net.train(before)
