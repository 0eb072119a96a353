"""Checkpointing changes memory and nothing else: compared, to the bit, with the same net without it."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from resnetlab.core.errors import ConfigError
from resnetlab.models import recompute as checkpointing
from resnetlab.models.recompute import recompute_blocks
from resnetlab.models.zoo import create_model

NETS = {
    "post": ("cifar_resnet20", {}),
    "pre": ("cifar_preact_resnet20", {}),
    "pre bottleneck": ("cifar_preact_resnet20", {"branch": "bottleneck"}),
    "dropout": ("cifar_resnet20", {"dropout": 0.3, "stochastic_depth": 0.2}),
    "plain": ("cifar_plain20", {}),
    "mlp": ("mlp_resnet20", {"norm": "batch", "in_chans": 3}),
}


def train_step(net: nn.Module, times: int = 2) -> dict[str, torch.Tensor]:
    """Outputs, gradients and buffers of some steps in training mode."""
    torch.manual_seed(3)
    step = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.randn(4, 3, 8, 8)
    for _ in range(times):
        logits = net.train()(x)
        step.zero_grad()
        logits.square().mean().backward()
        step.step()
    found = {"logits": logits.detach(), **dict(net.named_buffers())}
    found |= {f"{name}.grad": parameter.grad for name, parameter in net.named_parameters()}
    return found | {name: parameter.detach() for name, parameter in net.named_parameters()}


def differing(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> list[str]:
    assert list(found) == list(expected)
    return [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("kind", NETS)
def test_outputs_gradients_and_statistics_are_equal_to_the_bit(kind, every):
    name, overrides = NETS[kind]
    net = create_model(name, image_size=8, **overrides)
    checked = recompute_blocks(deepcopy(net), every)
    assert differing(train_step(checked), train_step(net)) == []
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(checked.eval()(x), net.eval()(x))
    with torch.no_grad():
        assert torch.equal(checked(x), net(x))


def test_statistics_that_are_not_held_count_twice(monkeypatch):
    """The control, and the fault of other libraries."""
    monkeypatch.setattr(checkpointing.HeldStatistics, "__enter__", lambda self: setattr(self, "before", []))
    monkeypatch.setattr(checkpointing.HeldStatistics, "__exit__", lambda *_: None)
    net = create_model("cifar_resnet20")
    wrong = differing(train_step(recompute_blocks(deepcopy(net), 2), 1), train_step(net, 1))
    assert "stages.1.1.branch.norm1.running_mean" in wrong
    assert "stages.1.1.branch.norm1.num_batches_tracked" in wrong
    assert not any(name.endswith(".grad") for name in wrong)


def test_momentum_and_counters_are_put_back():
    net = recompute_blocks(create_model("cifar_resnet8"), 1)
    train_step(net, 2)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
    assert {int(norm.num_batches_tracked) for norm in norms} == {2}


def test_backward_can_run_twice_over_one_graph():
    net = recompute_blocks(create_model("cifar_resnet8"), 1).train()
    loss = net(torch.randn(4, 3, 8, 8)).square().mean()
    loss.backward(retain_graph=True)
    first = net.head.weight.grad.clone()
    loss.backward()
    assert torch.equal(net.head.weight.grad, 2 * first)
    assert int(net.stages[0][0].branch.norm1.num_batches_tracked) == 1


def test_names_copies_and_intermediates_stay():
    net = create_model("cifar_resnet20")
    checked = recompute_blocks(deepcopy(net), 2)
    assert list(checked.state_dict()) == list(net.state_dict())
    x = torch.randn(2, 3, 8, 8)
    assert list(checked.forward_intermediates(x)) == list(net.forward_intermediates(x))
    assert [len(segment) for segment in deepcopy(checked).stages[0].segments()] == [2, 1]
    assert len(checked.stages[0][1:]) == 2


def test_every_and_network_are_checked():
    with pytest.raises(ConfigError, match="every=0"):
        recompute_blocks(create_model("cifar_resnet8"), 0)
    with pytest.raises(ConfigError, match="Linear has no stages"):
        recompute_blocks(nn.Linear(1, 1), 1)
