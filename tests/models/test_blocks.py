"""The mathematics of a block, as the introductory texts and the paper state it, against hand-written references."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from resnetlab.core.errors import ConfigError
from resnetlab.models.blocks import (
    BRANCHES,
    BasicBranch,
    BlockStyle,
    BottleneckBranch,
    FcBranch,
    ResidualBlock,
    last_scale,
)
from resnetlab.models.shortcuts import IdentityShortcut, MatrixShortcut, make_shortcut


def relu(z: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0)


def forward_by_hand(x: np.ndarray, weights: dict[str, np.ndarray], *, residual: bool) -> np.ndarray:
    """a[l+2] = g(W[l+2] g(W[l+1] a[l] + b[l+1]) + b[l+2] + W_s a[l]), a column a sample; layer l+2 reads a[l+1]."""
    z1 = weights["W1"] @ x + weights["b1"][:, None]
    a1 = relu(z1)
    z2 = weights["W2"] @ a1 + weights["b2"][:, None]
    return relu(z2 + weights["Ws"] @ x) if residual else relu(z2)


def fc_block(in_features: int, width: int, *, residual: bool) -> tuple[ResidualBlock, dict[str, np.ndarray]]:
    """A block in float64 with random weights, and the same weights for the reference."""
    rng = np.random.default_rng(0)
    weights = {
        "W1": rng.normal(size=(width, in_features)),
        "b1": rng.normal(size=width),
        "W2": rng.normal(size=(width, width)),
        "b2": rng.normal(size=width),
        "Ws": rng.normal(size=(width, in_features)) if width != in_features else np.eye(width),
    }
    shortcut = make_shortcut("B" if residual else None, in_features, width, form="fc")
    block = ResidualBlock(FcBranch(in_features, width), shortcut).double()
    targets = {
        "W1": block.branch.linear1.weight,
        "b1": block.branch.linear1.bias,
        "W2": block.branch.linear2.weight,
        "b2": block.branch.linear2.bias,
    }
    if isinstance(shortcut, MatrixShortcut):
        targets["Ws"] = shortcut.linear.weight
    with torch.no_grad():
        for name, parameter in targets.items():
            parameter.copy_(torch.from_numpy(weights[name]))
    return block, weights


@pytest.mark.parametrize("width", [6, 9])
@pytest.mark.parametrize("residual", [True, False])
def test_fc_block_forward_equals_numpy(width, residual):
    block, weights = fc_block(6, width, residual=residual)
    x = np.random.default_rng(1).normal(size=(6, 5))
    assert_close(block(torch.from_numpy(x.T)).detach().numpy().T, forward_by_hand(x, weights, residual=residual))


@pytest.mark.parametrize("width", [4, 6])
@pytest.mark.parametrize("residual", [True, False])
def test_fc_block_gradients_equal_finite_differences_of_the_reference(width, residual):
    block, weights = fc_block(4, width, residual=residual)
    x = np.random.default_rng(2).normal(size=(4, 3))
    direction = np.random.default_rng(3).normal(size=(width, 3))

    def loss(x: np.ndarray, weights: dict[str, np.ndarray]) -> float:
        return float((forward_by_hand(x, weights, residual=residual) * direction).sum())

    inputs = torch.from_numpy(x.T.copy()).requires_grad_()
    (block(inputs) * torch.from_numpy(direction.T)).sum().backward()
    found = {"x": inputs.grad.T, "W1": block.branch.linear1.weight.grad, "b1": block.branch.linear1.bias.grad}
    found |= {"W2": block.branch.linear2.weight.grad, "b2": block.branch.linear2.bias.grad}
    if isinstance(block.shortcut, MatrixShortcut):
        found["Ws"] = block.shortcut.linear.weight.grad

    for name, gradient in found.items():
        expected = np.zeros(gradient.shape)
        for index in np.ndindex(*gradient.shape):
            values = []
            for step in (1e-6, -1e-6):
                moved = {key: value.copy() for key, value in (weights | {"x": x}).items()}
                moved[name][index] += step
                values.append(loss(moved.pop("x"), moved))
            expected[index] = (values[0] - values[1]) / 2e-6
        assert_close(gradient.numpy(), expected, rtol=1e-6, atol=1e-7, msg=name)


def silent(make, depth: int, *, residual: bool, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """``depth`` blocks of the branch that ``make`` gives, W = 0 and b = 0."""
    blocks = [ResidualBlock(make(), IdentityShortcut() if residual else None, activation()) for _ in range(depth)]
    net = nn.Sequential(*blocks).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.zero_()
                if module.bias is not None:
                    module.bias.zero_()
    return net


FORMS = {
    "fc": (lambda: FcBranch(8, 8), (4, 8)),
    "basic": (lambda: BasicBranch(4, 4), (2, 4, 5, 5)),
    "bottleneck": (lambda: BottleneckBranch(8, 2), (2, 8, 5, 5)),
}


@pytest.mark.parametrize("depth", [128, 1000])
@pytest.mark.parametrize("form", FORMS)
def test_zero_weights_make_a_residual_net_the_bit_exact_identity(form, depth):
    make, shape = FORMS[form]
    x = torch.rand(shape)
    with torch.no_grad():
        assert torch.equal(silent(make, depth, residual=True)(x), x)


@pytest.mark.parametrize("form", FORMS)
def test_zero_weights_make_a_plain_net_g_of_zero(form):
    make, shape = FORMS[form]
    with torch.no_grad():
        y = silent(make, 128, residual=False)(torch.rand(shape))
        sigmoid = silent(make, 3, residual=False, activation=nn.Sigmoid)(torch.rand(shape))
    assert torch.equal(y, torch.zeros(shape))
    assert torch.equal(sigmoid, torch.full(shape, 0.5))


@pytest.mark.parametrize("form", FORMS)
def test_zero_weights_are_no_identity_for_tanh(form):
    make, shape = FORMS[form]
    x = torch.rand(shape) + 0.1
    with torch.no_grad():
        assert not torch.equal(silent(make, 1, residual=True, activation=nn.Tanh)(x), x)


@pytest.mark.parametrize("form", FORMS)
def test_zero_weights_are_no_identity_for_negative_input(form):
    make, shape = FORMS[form]
    with torch.no_grad():
        assert torch.equal(silent(make, 1, residual=True)(-torch.rand(shape)), torch.zeros(shape))


@pytest.mark.parametrize("form", FORMS)
def test_jacobian_of_the_sum_is_that_of_the_branch_plus_one(form):
    make, shape = FORMS[form]
    branch = make().double().eval()
    x = torch.randn(1, *shape[1:], dtype=torch.float64)
    size = x.numel()

    def jacobian(function):
        return torch.autograd.functional.jacobian(function, x).reshape(size, size)

    of_sum = jacobian(ResidualBlock(branch, IdentityShortcut(), nn.Identity()))
    assert_close(of_sum, jacobian(branch) + torch.eye(size, dtype=torch.float64))
    assert jacobian(branch).abs().max() > 1e-3


def test_addition_comes_before_the_activation():
    class MinusTwo(nn.Module):
        def forward(self, x):
            return torch.full_like(x, -2)

    x = torch.tensor([[1.0, 3.0]])
    # The other order, g(F) + x, would give 1 and 3.
    assert ResidualBlock(MinusTwo(), IdentityShortcut())(x).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_hook_that_keeps_the_branch_output_reads_true_values(form, training):
    make, shape = FORMS[form]
    block = ResidualBlock(make(), IdentityShortcut()).train(training)
    kept = []
    block.branch.register_forward_hook(lambda _module, _inputs, output: kept.append((output, output.clone())))
    block(torch.randn(shape))
    output, copied_at_once = kept[0]
    assert torch.equal(output, copied_at_once)


def test_plain_twin_has_the_same_parameter_names():
    plain = ResidualBlock(BasicBranch(4, 8, 2), None)
    residual = ResidualBlock(BasicBranch(4, 8, 2), make_shortcut("A", 4, 8, 2))
    projected = ResidualBlock(BasicBranch(4, 8, 2), make_shortcut("B", 4, 8, 2))
    assert list(plain.state_dict()) == list(residual.state_dict())
    assert [name for name in projected.state_dict() if not name.startswith("shortcut.")] == list(plain.state_dict())


@pytest.mark.parametrize(("stride_in", "first", "second"), [("3x3", (1, 1), (2, 2)), ("1x1", (2, 2), (1, 1))])
def test_bottleneck_stride_is_where_it_is_asked_for(stride_in, first, second):
    branch = BottleneckBranch(16, 8, stride=2, style=BlockStyle(stride_in=stride_in))
    assert (branch.conv1.stride, branch.conv2.stride) == (first, second)
    assert branch(torch.randn(2, 16, 9, 9)).shape == (2, 32, 5, 5)


def test_bottleneck_unknown_stride_place_is_refused():
    with pytest.raises(ConfigError, match="stride_in"):
        BlockStyle(stride_in="5x5")


@pytest.mark.parametrize("name", BRANCHES)
def test_branch_expansion_is_its_output_over_its_width(name):
    branch = BRANCHES[name](12, 4)
    x = torch.randn(3, 12) if name == "fc" else torch.randn(3, 12, 6, 6)
    assert branch(x).shape[1] == 4 * BRANCHES[name].expansion


@pytest.mark.parametrize("name", BRANCHES)
def test_last_scale_zero_silences_a_branch(name):
    branch = BRANCHES[name](12, 4)
    for parameter_name, parameter in branch.named_parameters():
        if parameter_name.endswith("bias"):
            nn.init.zeros_(parameter)
    x = torch.randn(3, 12) if name == "fc" else torch.randn(3, 12, 6, 6)
    assert branch(x).abs().max() > 0
    nn.init.zeros_(last_scale(branch))
    assert not branch(x).any()


@pytest.mark.parametrize(("norm", "kind"), [("none", nn.Identity), ("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm)])
def test_fc_branch_norm_by_name(norm, kind):
    branch = FcBranch(6, 4, norm)
    assert isinstance(branch.norm1, kind)
    assert isinstance(branch.norm2, kind)


def test_fc_branch_unknown_norm_is_refused():
    with pytest.raises(ConfigError, match="'layer'"):
        FcBranch(6, 4, "leyer")
