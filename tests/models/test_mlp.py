import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from resnetlab.core.errors import ConfigError
from resnetlab.data.config import AugmentConfig
from resnetlab.data.sources import load_data
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.mlp import MLPConfig, divide_blocks
from resnetlab.models.summary import summarise
from resnetlab.models.zoo import create_model, model_config
from resnetlab.train.config import TrainConfig
from resnetlab.train.gradients import block_gradients
from resnetlab.train.loop import fit


@pytest.mark.parametrize("depth", [2, 3, 4, 9, 34, 128])
@pytest.mark.parametrize("kind", ["plain", "resnet"])
def test_depth_counts_weight_layers(kind, depth):
    config = model_config(f"mlp_{kind}{depth}")
    assert summarise(config).weight_layers == depth
    assert sum(isinstance(module, nn.Linear) for module in config.make().modules()) == depth


def test_forward_equals_the_network_written_out():
    net = create_model("mlp_resnet6", widths=(128, 256), image_size=4, seed=1)
    w = net.state_dict()
    x = torch.randn(3, 1, 4, 4)
    a0 = F.relu(F.linear(x.flatten(1), w["stem.linear1.weight"], w["stem.linear1.bias"]))
    for stage in (0, 1):
        block = f"stages.{stage}.0"
        a1 = F.relu(F.linear(a0, w[f"{block}.branch.linear1.weight"], w[f"{block}.branch.linear1.bias"]))
        z2 = F.linear(a1, w[f"{block}.branch.linear2.weight"], w[f"{block}.branch.linear2.bias"])
        shortcut = a0 if stage == 0 else a0 @ w[f"{block}.shortcut.linear.weight"].T
        a0 = F.relu(z2 + shortcut)
    assert_close(net(x), F.linear(a0, w["head.weight"], w["head.bias"]))


def test_vectors_and_images_are_the_same_input():
    net = create_model("mlp_resnet8")
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(net(x), net(x.flatten(1)))


@pytest.mark.parametrize(
    ("blocks", "widths", "expected"), [(5, (8, 8), [3, 2]), (4, (8,), [4]), (1, (8, 8, 8), [1, 0, 0])]
)
def test_blocks_are_spread_evenly_over_the_widths(blocks, widths, expected):
    assert divide_blocks(blocks, widths) == expected


@pytest.mark.parametrize("depth", [2, 3, 4, 5, 7])
def test_more_widths_than_blocks_still_make_a_network(depth):
    net = create_model(f"mlp_resnet{depth}", widths=(8, 12, 16))
    assert net(torch.randn(2, 64)).shape == (2, 10)


@pytest.mark.parametrize("shortcut", ["A", "B", "C", None])
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_every_norm_and_shortcut_learns_something(norm, shortcut):
    net = create_model("mlp_resnet8", norm=norm, shortcut=shortcut, widths=(8, 16))
    net(torch.randn(4, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_without_norm_128_layers_of_he_weights_multiply_the_signal_beyond_bounds():
    """numbers: the forward standard deviation of the residual net grows by 4e11 over 128 layers."""
    net = create_model("mlp_resnet130")
    x = torch.randn(64, 64)
    ratio = net.stages(net.stem(x)).std() / net.stem(x).std()
    assert 1e10 < ratio < 1e13


@pytest.mark.parametrize("setting", ["zero_init_residual", "scale_residual"])
def test_1000_layers_with_a_depth_safe_start_keep_signal_and_gradient_finite(setting):
    net = create_model("mlp_resnet1000", **{setting: True})
    assert sum(isinstance(module, ResidualBlock) for module in net.modules()) == 499
    sizes: list[float] = []
    for module in net.modules():
        if isinstance(module, ResidualBlock):
            module.register_forward_hook(lambda _m, _i, output: sizes.append(output.std().item()))
    gradients = block_gradients(net, torch.randn(64, 1, 8, 8), torch.arange(64) % 10)
    assert min(sizes) > 0.1
    assert max(sizes) < 100
    assert all(gradient.gradient_norm is not None for gradient in gradients)


def test_1000_layers_without_a_depth_safe_start_overflow():
    net = create_model("mlp_resnet1000")
    assert not net(torch.randn(4, 64)).isfinite().all()


def test_1000_layers_with_a_depth_safe_start_train_on_digits():
    net = create_model("mlp_resnet1000", zero_init_residual=True)
    history = fit(
        net, load_data("digits"), TrainConfig(epochs=1, lr=1e-3, augment=AugmentConfig(crop_padding=0)), seed=0
    )
    assert history[-1].train.error < 0.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"depth": 1}, "from 2"),
        ({"depth": 10**6}, "65536"),
        ({"widths": ()}, "widths"),
        ({"widths": (0,)}, "widths"),
        ({"norm": "bach"}, "batch"),
    ],
)
def test_impossible_config_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        MLPConfig(**({"depth": 8} | overrides))
