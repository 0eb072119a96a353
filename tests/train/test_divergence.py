"""Where a loss stopped being finite, on nets in which that was put at one place."""

import torch
from torch import nn

from resnetlab.models.recompute import recompute_blocks
from resnetlab.models.zoo import create_model
from resnetlab.train.divergence import broken_weights, find_origin

X = torch.ones(4, 3, 8, 8)


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def chain(*factors: float) -> nn.Sequential:
    return nn.Sequential(*[Scale(factor) for factor in factors])


def test_images_that_are_not_finite_are_named():
    assert find_origin(chain(1.0), X / 0, 3) == "the images of step 3 are not finite"


def test_weights_that_are_not_finite_are_named_with_the_step_before():
    net = create_model("cifar_resnet8")
    with torch.no_grad():
        net.stages[0][0].branch.conv1.weight[0, 0, 0, 0] = float("nan")
        net.stem.conv.weight[0, 0, 0, 0] = float("nan")
    assert find_origin(net, X, 3) == "stages.0.0.branch.conv1.weight is not finite since the update of step 2"


def test_broken_weights_are_those_with_any_number_that_is_not_finite():
    net = create_model("cifar_resnet8")
    assert broken_weights(net) == broken_weights(nn.ReLU()) == []
    with torch.no_grad():
        net.stem.norm.bias[-1] = float("-inf")
        net.head.weight[0, 0] = float("nan")
    net.head.bias = nn.Parameter(torch.zeros(0))
    assert broken_weights(net) == ["stem.norm.bias", "head.weight"]


def test_first_layer_with_an_output_that_is_not_finite_is_named():
    assert find_origin(chain(1.0, 1e30, 1e30, 1e30), X, 3) == "it began in the output of 2"
    net = create_model("cifar_resnet8").train()
    with torch.no_grad():
        net.stages[1][0].branch.norm2.bias.fill_(3e38)
        net.stages[1][0].branch.norm2.weight.fill_(3e38)
    assert find_origin(net, torch.randn(4, 3, 8, 8), 3) == "it began in the output of stages.1.0.branch.norm2"
    assert find_origin(recompute_blocks(net, 1), torch.randn(4, 3, 8, 8), 3).endswith("stages.1.0.branch.norm2")


def test_statistics_that_are_not_finite_are_named_where_they_are_used():
    net = create_model("cifar_resnet8").train()
    net.stages[0][0].branch.norm1.running_mean[0] = float("inf")
    assert find_origin(net, torch.randn(4, 3, 8, 8), 3) == "stages.0.0.branch.norm1.running_mean is not finite"
    assert find_origin(net.eval(), torch.randn(4, 3, 8, 8), 3).endswith("the output of stages.0.0.branch.norm1")


def test_finite_outputs_leave_the_loss():
    assert find_origin(chain(1.0, 2.0), X, 3) == "it began in the loss: the network's outputs are finite"


def test_statistics_modes_and_hooks_stay_as_they_are():
    net = create_model("cifar_resnet8").train()
    with torch.no_grad():
        net.stages[1][0].branch.norm2.bias.fill_(3e38)
        net.stages[1][0].branch.norm2.weight.fill_(3e38)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    find_origin(net, torch.randn(4, 3, 8, 8), 3)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())


def test_layer_of_a_compiled_net_is_found_too():
    net = nn.Sequential(nn.BatchNorm2d(3), Scale(1e30), Scale(1e30))
    net.compile(backend="eager")
    assert find_origin(net, torch.randn(4, 3, 8, 8), 3) == "it began in the output of 2"
