import copy
from math import log10, sqrt

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnetlab.models.zoo import create_model
from resnetlab.records.gradients import ORDERS, RULE, BlockGradient, judge
from resnetlab.train.gradients import block_gradients


def test_gradient_of_a_linear_net_equals_the_hand_solved_one():
    """∇W = (softmax(Wx) - onehot(y)) xᵀ / N, in float64 to 1e-10."""
    net = nn.Linear(4, 3, bias=False).double()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    residue = torch.softmax(x @ net.weight.T, dim=1) - F.one_hot(y, 3)
    expected = (residue.T @ x / 5).norm().item()
    (found,) = block_gradients(net, x, y)
    assert found.block == "weight"
    assert found.gradient_norm == pytest.approx(expected, abs=1e-10)
    assert found.weight_norm == pytest.approx(net.weight.norm().item(), abs=1e-10)


@pytest.mark.parametrize("name", ["cifar_resnet14", "cifar_plain14", "mlp_resnet9"])
def test_norms_are_those_of_the_blocks_own_weights(name):
    net = create_model(name, in_chans=1)
    side = 8
    images, labels = torch.randn(6, 1, side, side), torch.arange(6)
    found = block_gradients(net, images, labels)
    twin = copy.deepcopy(net).train()
    F.cross_entropy(twin(images), labels).backward()
    blocks = [gradient for gradient in found if gradient.block.startswith("stages.")]
    for gradient in blocks:
        branch = twin.get_submodule(gradient.block).branch
        weights = [p for p in branch.parameters() if p.dim() > 1]
        assert len(weights) == 2
        assert gradient.gradient_norm == pytest.approx(sqrt(sum(float(p.grad.norm()) ** 2 for p in weights)), rel=1e-5)
        assert gradient.weight_norm == pytest.approx(
            sqrt(sum(float(p.detach().norm()) ** 2 for p in weights)), rel=1e-5
        )
    assert len(blocks) == {"cifar_resnet14": 6, "cifar_plain14": 6, "mlp_resnet9": 3}[name]
    assert found[0].block.startswith("stem")
    assert found[-1].block == "head"


def test_weights_of_shortcuts_belong_to_no_block():
    found = [
        [
            gradient.block
            for gradient in block_gradients(
                create_model("cifar_resnet14", in_chans=1, shortcut=shortcut), torch.randn(6, 1, 8, 8), torch.arange(6)
            )
        ]
        for shortcut in ("A", "B")
    ]
    blocks = [f"stages.{stage}.{number}" for stage in range(3) for number in range(2)]
    assert found == [["stem.conv", *blocks, "head"]] * 2


@pytest.mark.parametrize("training", [True, False])
def test_probing_changes_nothing(training):
    net = create_model("cifar_resnet8", in_chans=1).train(training)
    before = copy.deepcopy(net.state_dict())
    block_gradients(net, torch.randn(6, 1, 8, 8), torch.arange(6))
    assert net.training is training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_overflow_is_recorded_as_no_number():
    net = create_model("cifar_resnet8", in_chans=1)
    with torch.no_grad():
        net.head.weight.fill_(float("inf"))
    found = block_gradients(net, torch.randn(6, 1, 8, 8), torch.arange(6))
    assert all(gradient.gradient_norm is None for gradient in found)
    assert judge(found).verdict == "broken"


def blocks(*relative: float | None) -> list[BlockGradient]:
    return [
        BlockGradient(block=f"stages.0.{i}", gradient_norm=value, weight_norm=1.0) for i, value in enumerate(relative)
    ]


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.1, "exploding"), (10.0, "vanishing"), (1.0, "healthy"), (0.9, "healthy")]
)
def test_geometric_gradients_have_their_exact_growth(factor, verdict):
    found = judge(blocks(*[3.0 * factor**i for i in range(11)]))
    assert found.verdict == verdict
    assert found.growth == pytest.approx({0.1: 10, 10.0: -10, 1.0: 0, 0.9: -10 * log10(0.9)}[factor], abs=1e-10)


def test_growth_is_that_of_the_fitted_line_and_not_of_its_ends():
    """log10 is 0, 1, 0, 0: Σ (i - 1.5) v_i / Σ (i - 1.5)² = -0.5 / 5 a block, over 3 steps back to the first."""
    assert judge(blocks(1.0, 10.0, 1.0, 1.0)).growth == pytest.approx(0.3, abs=1e-10)


def test_stem_and_head_are_left_out_of_the_growth():
    outer = BlockGradient(block="stem.conv", gradient_norm=1e9, weight_norm=1.0)
    assert judge([outer, *blocks(1, 1, 1), outer]).growth == pytest.approx(0)


@pytest.mark.parametrize(("norm", "verdict"), [(0.0, "silent"), (None, "broken")])
def test_a_zero_norm_is_silent_and_a_missing_one_broken(norm, verdict):
    assert judge(blocks(1.0, norm, 1.0)).verdict == verdict


def test_a_net_that_starts_at_zero_is_silent_and_not_broken():
    net = create_model("cifar_resnet8", in_chans=1, zero_init_residual=True)
    assert judge(block_gradients(net, torch.randn(6, 1, 8, 8), torch.arange(6))).verdict == "silent"


def test_one_block_has_no_growth():
    assert judge(blocks(4.0)).growth == 0


def test_the_rule_prints_its_threshold():
    assert f"+{ORDERS:g} orders" in RULE


def test_gradients_of_a_net_that_drops_at_random_are_the_same_in_every_call():
    net = create_model("cifar_resnet8", in_chans=1, stochastic_depth=0.5)
    images, labels = torch.randn(6, 1, 8, 8), torch.arange(6)
    before = torch.random.get_rng_state()
    first, second = block_gradients(net, images, labels), block_gradients(net, images, labels)
    assert first == second
    assert torch.equal(torch.random.get_rng_state(), before)
