"""Hooks that keep what a block computes, without a copy, read true values: nothing is overwritten afterwards."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.shortcuts import IdentityShortcut
from resnetlab.models.zoo import create_model

NETS = {
    "post A": ("cifar_resnet20", {}),
    "post B": ("cifar_resnet20", {"shortcut": "B"}),
    "pre": ("cifar_preact_resnet20", {}),
    "post bottleneck": ("resnet50", {"depths": (2, 2), "widths": (4, 8), "stem_width": 8, "image_size": 32}),
    "pre bottleneck": ("resnetv2_50", {"depths": (2, 2), "widths": (4, 8), "stem_width": 8, "image_size": 32}),
    "se": ("seresnet50", {"depths": (2, 2), "widths": (8, 8), "stem_width": 8, "image_size": 32}),
    "mlp": ("mlp_resnet20", {"in_chans": 3, "image_size": 32, "norm": "batch"}),
}


def keep_everything(net: nn.Module) -> dict[str, Tensor]:
    """Hooks that keep the very tensors: input, F, S, sum and output of every block."""
    kept: dict[str, Tensor] = {}

    def keep_output(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _m, _i, output: kept.update({name: output}))

    def keep_input(name: str, module: nn.Module) -> None:
        module.register_forward_pre_hook(lambda _m, inputs: kept.update({name: inputs[0]}))

    for name, block in net.named_modules():
        if isinstance(block, ResidualBlock):
            keep_input(f"{name} x", block)
            keep_output(f"{name} F", block.branch)
            keep_output(f"{name} S", block.shortcut)
            keep_input(f"{name} sum", block.activation)
            keep_output(f"{name} y", block)
    return kept


def recompute(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The same block by block with copies: F and S called alone, added here."""
    found: dict[str, Tensor] = {}
    x = net.stem(net.prepare(x))
    for name, block in net.named_modules():
        if isinstance(block, ResidualBlock):
            activated = block.preactivation(x.clone())
            branch = block.branch(activated.clone()).clone()
            shortcut = block.shortcut((x if isinstance(block.shortcut, IdentityShortcut) else activated).clone())
            total = torch.add(branch, shortcut)
            found |= {f"{name} x": x, f"{name} F": branch, f"{name} S": shortcut.clone(), f"{name} sum": total.clone()}
            x = found[f"{name} y"] = block.activation(total).clone()
    return found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", NETS)
def test_kept_branches_shortcuts_and_sums_are_true_after_forward_and_backward(kind, training):
    name, overrides = NETS[kind]
    net = create_model(name, seed=4, **overrides).train(training)
    twin = deepcopy(net)
    x = torch.randn(4, 3, 32, 32)
    kept = keep_everything(net)
    net(x).square().mean().backward()
    expected = recompute(twin, x)
    assert kept.keys() == expected.keys()
    for what, tensor in expected.items():
        assert torch.equal(kept[what], tensor), what


def test_in_place_sum_would_be_read_in_place_of_the_branch():
    """The control: what other libraries' blocks do."""

    class InPlace(ResidualBlock):
        def forward(self, x: Tensor) -> Tensor:
            out = self.branch(x)
            out += self.shortcut(x)
            return torch.relu_(out)

    net = create_model("cifar_resnet8")
    twin = deepcopy(net)
    for module in net.modules():
        if isinstance(module, ResidualBlock):
            module.__class__ = InPlace
    kept = keep_everything(net)
    x = torch.randn(4, 3, 8, 8)
    net(x)
    assert not torch.equal(kept["stages.0.0 F"], recompute(twin, x)["stages.0.0 F"])
