import pytest
import torch
from torch import nn

from resnetlab.models.zoo import create_model
from resnetlab.records.gradients import BlockGradient, GradientMoment, moment
from resnetlab.train.gradients import block_gradients


def gradient(block: str, relative: float | None) -> BlockGradient:
    return BlockGradient(block=block, gradient_norm=relative, weight_norm=1.0)


def test_moment_has_both_ends_of_the_blocks_and_their_growth():
    """10⁰, 10⁻¹, 10⁻²: two orders from the last block to the first; stem and head are no blocks."""
    blocks = [gradient(f"stages.0.{n}", 10.0**-n) for n in range(3)]
    found = moment(4, [gradient("stem.conv", 7.0), *blocks, gradient("head", 9.0)])
    assert (found.step, found.first, found.last) == (4, 1.0, 0.01)
    assert found.growth == pytest.approx(2.0, abs=1e-12)


def test_moment_of_a_net_without_blocks_is_that_of_its_layers():
    assert moment(0, [gradient("a", 2.0)]) == GradientMoment(step=0, first=2.0, last=2.0, growth=0.0)


@pytest.mark.parametrize("broken", [None, 0.0])
def test_moment_without_a_growth_keeps_the_ends(broken):
    found = moment(1, [gradient("stages.0.0", 3.0), gradient("stages.0.1", broken)])
    assert found == GradientMoment(step=1, first=3.0, last=broken, growth=None)


def test_half_frozen_net_is_measured_as_if_it_were_not_and_left_so():
    net, free = (create_model("cifar_resnet8", in_chans=1) for _ in range(2))
    net.train()
    net.stages[0].eval().requires_grad_(False)
    modes = [module.training for module in net.modules()]
    frozen = [parameter.requires_grad for parameter in net.parameters()]
    batch = torch.randn(6, 1, 8, 8), torch.arange(6)
    assert block_gradients(net, *batch) == block_gradients(free, *batch)
    assert [module.training for module in net.modules()] == modes
    assert [parameter.requires_grad for parameter in net.parameters()] == frozen
    assert len(set(modes)) == len(set(frozen)) == 2


def test_net_is_left_as_it_was_where_the_pass_fails():
    net = nn.Linear(3, 2).eval().requires_grad_(False)
    with pytest.raises(RuntimeError):
        block_gradients(net, torch.zeros(2, 4), torch.arange(2))
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
