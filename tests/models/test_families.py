"""Variants are arguments of the one block: each changes just what it says."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from resnetlab.core.errors import ConfigError
from resnetlab.models.blocks import BasicBranch, BlockStyle, ResidualBlock, make_preactivation
from resnetlab.models.layers import (
    Multiplier,
    ScalarAffine,
    ScalarBias,
    SqueezeExcite,
    StochasticDepth,
    make_activation,
    make_norm,
    round_to_eight,
)
from resnetlab.models.resnet import ResNetConfig, image_notes
from resnetlab.models.shortcuts import IdentityShortcut, ProjectionShortcut, make_shortcut
from resnetlab.models.zoo import create_model, list_models, model_config

FREE = {"depths": (1, 2), "widths": (8, 16), "stem": "cifar", "num_classes": 5, "image_size": 16}


def free(**choices) -> nn.Module:
    return create_model("resnet18", **(FREE | choices))


def small_net_of(**choices) -> torch.Tensor:
    torch.manual_seed(0)
    return free(**choices)(torch.randn(3, 3, 16, 16))


FAMILIES = ["resnet18", "resnetv2_50", "resnext50_32x4d", "seresnet50", "resnet50d", "wide_resnet16_4", "resnet50"]


@pytest.mark.parametrize("shortcut", ["A", "B", "C", None])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_every_shortcut_option(name, shortcut):
    net = create_model(name, shortcut=shortcut, widths=(32, 64), depths=(1, 2), num_classes=4, device="meta")
    kinds = [type(m.shortcut).__name__ for m in net.modules() if isinstance(m, ResidualBlock)]
    expected = {
        "A": {"ZeroPadShortcut", "IdentityShortcut"},
        "B": {"ProjectionShortcut", "IdentityShortcut"},
        "C": {"ProjectionShortcut"},
        None: {"NoneType"},
    }[shortcut]
    assert set(kinds) <= expected
    assert net.eval()(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 4)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_plain_twin_with_equal_weights(name):
    residual = create_model(name, widths=(32, 64), depths=(1, 1), num_classes=4)
    plain = create_model(name, widths=(32, 64), depths=(1, 1), num_classes=4, shortcut=None)
    theirs = residual.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in plain.state_dict().items())


def test_preactivation_block_where_the_shape_stays_is_x_plus_f_of_p():
    style = BlockStyle(order="pre")
    p, branch = make_preactivation(style, 4), BasicBranch(4, 4, style=style)
    block = ResidualBlock(branch, IdentityShortcut(), nn.Identity(), p).eval()
    x = torch.randn(2, 4, 5, 5)
    assert_close(block(x), x + branch(F.relu(p.norm(x))))


def test_preactivation_block_where_the_shape_changes_projects_the_activated_input():
    style = BlockStyle(order="pre")
    p, branch = make_preactivation(style, 4), BasicBranch(4, 8, 2, style)
    shortcut = make_shortcut("B", 4, 8, 2, norm=nn.Identity)
    block = ResidualBlock(branch, shortcut, nn.Identity(), p).eval()
    x = torch.randn(2, 4, 6, 6)
    activated = F.relu(p.norm(x))
    assert_close(block(x), shortcut.conv(activated) + branch(activated))
    assert isinstance(shortcut.norm, nn.Identity)


def test_preactivation_net_norms_once_behind_its_stages_and_not_in_its_stem():
    net = create_model("cifar_preact_resnet20")
    assert [name for name, _ in net.stem.named_children()] == ["conv"]
    assert isinstance(net.final.norm, nn.BatchNorm2d)
    x = torch.randn(2, 3, 32, 32)
    features = net.eval().forward_features(x)
    assert (features >= 0).all()


@pytest.mark.parametrize(
    ("depth", "kind", "blocks"), [(20, "basic", 3), (110, "basic", 18), (164, "bottleneck", 18), (29, "bottleneck", 3)]
)
def test_cifar_preact_depths_are_those_of_the_paper(depth, kind, blocks):
    config = model_config(f"cifar_preact_resnet{depth}")
    assert (config.branch, config.depths) == (kind, (blocks,) * 3)


def test_cifar_preact_wrong_depth_names_the_nearest():
    with pytest.raises(
        ConfigError, match=r"6n \+ 2 or 9n \+ 2; the nearest are cifar_preact_resnet20 and cifar_preact_resnet26"
    ):
        create_model("cifar_preact_resnet22")


def test_squeeze_excite_equals_the_formula():
    se = SqueezeExcite(32, reduction=4)
    x = torch.randn(2, 32, 5, 5)
    w1, w2 = se.fc1.weight[:, :, 0, 0], se.fc2.weight[:, :, 0, 0]
    weights = torch.sigmoid(F.relu(x.mean((2, 3)) @ w1.T + se.fc1.bias) @ w2.T + se.fc2.bias)
    assert_close(se(x), x * weights[:, :, None, None])
    assert w1.shape == (8, 32)


@pytest.mark.parametrize(("channels", "rounded"), [(16, 16), (4, 8), (12, 16), (11, 16), (64, 64), (2.5, 8)])
def test_round_to_eight_never_loses_a_tenth(channels, rounded):
    assert round_to_eight(channels) == rounded


def test_groups_and_base_width_shape_the_inner_convolution():
    net = create_model("resnext50_32x4d", device="meta")
    branch = net.stages[0][0].branch
    assert branch.conv2.weight.shape == (128, 4, 3, 3)
    assert create_model("wide_resnet50_2", device="meta").stages[3][0].branch.conv2.weight.shape == (1024, 1024, 3, 3)


def test_projection_of_resnet_d_averages_before_w_s():
    shortcut = ProjectionShortcut(4, 8, 2, pool=True).eval()
    x = torch.randn(2, 4, 7, 7)
    pooled = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    assert_close(shortcut(x), shortcut.norm(shortcut.conv(pooled)))
    assert shortcut(x).shape == (2, 8, 4, 4)
    assert isinstance(ProjectionShortcut(4, 8, 1, pool=True).pool, nn.Identity)


def test_stochastic_depth_keeps_the_mean_and_draws_for_each_sample():
    drop = StochasticDepth(0.25).train()
    torch.manual_seed(0)
    out = drop(torch.ones(40_000, 2, 1, 1))
    kept = out[:, 0, 0, 0]
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(out[:, 0], out[:, 1])
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    x = torch.randn(3, 2)
    assert drop.eval()(x) is x


def test_stochastic_depth_follows_the_linear_rule():
    net = free(depths=(2, 2), stochastic_depth=0.4)
    assert [m.p for m in net.modules() if isinstance(m, StochasticDepth)] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_dropout_stands_before_the_last_convolution():
    net = create_model("wide_resnet16_4", dropout=0.3)
    drops = [m.p for m in net.modules() if isinstance(m, nn.Dropout)]
    assert drops == [0.3] * 6
    names = [name for name, _ in net.stages[0][0].branch.named_children()]
    assert names.index("dropout") == names.index("conv2") - 1


@pytest.mark.parametrize(("channels", "groups"), [(64, 4), (16, 1), (8, 1), (24, 1), (40, 2)])
def test_group_norm_has_sixteen_channels_a_group_or_the_nearest_that_divides(channels, groups):
    assert make_norm("group", channels).num_groups == groups


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("order", ["post", "pre"])
def test_every_norm_trains_in_every_order(norm, order):
    net = free(norm=norm, order=order)
    net(torch.randn(3, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules()) == (norm == "batch")
    assert (net.stem.conv.bias is not None) == (norm == "none")


@pytest.mark.parametrize("scaling", ["skipinit", "fixup"])
@pytest.mark.parametrize("order", ["post", "pre"])
def test_norm_free_scaling_keeps_1_000_layers_bounded_where_none_overflows(scaling, order):
    x = torch.randn(4, 3, 8, 8)
    overrides = {"depths": (166, 166, 166), "widths": (4, 4, 4), "stem_width": 4, "norm": "none", "order": order}
    overrides |= {"shortcut": "A"}
    with torch.no_grad():
        plain = create_model("cifar_resnet8", **overrides)
        scaled = create_model("cifar_resnet8", **overrides, scaling=scaling)
        assert scaled.forward_features(x).abs().max() < 100
        assert not plain.forward_features(x).abs().max() < 1e6


def test_skipinit_starts_at_zero_and_fixup_with_a_zero_last_convolution():
    skip, fix = (free(norm="none", scaling=scaling) for scaling in ("skipinit", "fixup"))
    usual = free(norm="none")
    assert [m.weight.item() for m in skip.modules() if isinstance(m, Multiplier)] == [0.0] * 3
    assert [m.weight.item() for m in fix.modules() if isinstance(m, Multiplier)] == [1.0] * 3
    branch = fix.stages[1][0].branch
    assert not branch.conv2.weight.any()
    assert_close(branch.conv1.weight, usual.stages[1][0].branch.conv1.weight * 3 ** (-1 / 2))


def test_fixups_scalar_biases_start_at_zero_and_keep_1_000_layers_bounded():
    net = free(norm="none", scaling="fixup_scalar")
    biases = [m.bias for m in net.modules() if isinstance(m, ScalarBias | ScalarAffine)]
    # One in the stem, four a block, one behind the last.
    assert len(biases) == 1 + 4 * 3 + 1
    assert not any(bias.any() for bias in biases)
    assert [m.weight.item() for m in net.modules() if isinstance(m, ScalarAffine)] == [1.0] * 3
    assert not any(m.bias is not None for m in net.modules() if isinstance(m, nn.Conv2d))
    usual = free(norm="none", scaling="fixup").state_dict()
    assert torch.equal(net.stages[1][0].branch.conv1.weight, usual["stages.1.0.branch.conv1.weight"])
    assert not net.stages[1][0].branch.conv2.weight.any()
    deep = {"depths": (166,) * 3, "widths": (4,) * 3, "stem_width": 4, "norm": "none", "scaling": "fixup_scalar"}
    with torch.no_grad():
        assert create_model("cifar_resnet8", **deep).forward_features(torch.randn(4, 3, 8, 8)).abs().max() < 100
    for wrong in ({"order": "pre"}, {"stem": "deep"}, {"norm": "batch"}):
        with pytest.raises(ConfigError, match="scaling"):
            free(**({"norm": "none", "scaling": "fixup_scalar"} | wrong))


def test_inner_widths_are_free_and_checked():
    net = free(branch="bottleneck", widths=(16, 24), inner_widths=(6, 10))
    shapes = [tuple(m.weight.shape) for m in net.stages[1][0].branch.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(10, 16, 1, 1), (10, 10, 3, 3), (24, 10, 1, 1)]
    assert net.num_features == 24
    for wrong in ({"inner_widths": (6,)}, {"inner_widths": (6, 0)}, {"branch": "basic", "inner_widths": (6, 10)}):
        with pytest.raises(ConfigError, match="inner_widths"):
            free(**({"branch": "bottleneck"} | wrong))


def test_settings_of_norms_reach_every_norm():
    assert {m.eps for m in free(norm_eps=1e-3).modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    grouped = free(norm="group", norm_groups=4, norm_eps=1e-3)
    assert {(m.num_groups, m.eps) for m in grouped.modules() if isinstance(m, nn.GroupNorm)} == {(4, 1e-3)}
    with pytest.raises(ConfigError, match="norm_groups=5 is not possible: it must be a divisor of each width"):
        free(norm="group", norm_groups=5)


def test_biases_stand_where_no_norm_follows():
    net = free(order="pre", branch="bottleneck", conv_bias=True, bias_before_norm=False)
    found = {name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None}
    assert {name.rpartition(".")[2] for name in found} == {"conv", "conv3"}
    assert {name for name in found if "conv3" not in name} == {
        "stem.conv",
        "stages.0.0.shortcut.conv",
        "stages.1.0.shortcut.conv",
    }


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"])
def test_activation_by_name_changes_the_function(name):
    x = torch.linspace(-2, 2, 5)
    function = {
        "relu": F.relu,
        "leaky_relu": F.leaky_relu,
        "elu": F.elu,
        "gelu": F.gelu,
        "silu": F.silu,
        "tanh": torch.tanh,
    }
    assert torch.equal(make_activation(name)(x), function[name](x))
    kinds = {type(m) for m in free(activation=name).modules()}
    assert type(make_activation(name)) in kinds


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 16), ("deep", 16), ("cifar", 64), ("auto", 64)])
def test_stem_by_name_leaves_its_map(stem, side):
    net = create_model("resnet18", stem=stem, image_size=64, device="meta")
    assert net.stem(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 64, side, side)


def test_auto_stem_says_what_it_chose_and_a_bad_match_gives_the_remedy():
    assert model_config("resnet18", stem="auto", image_size=32).stem_kind == "cifar"
    assert model_config("resnet18", stem="auto", image_size=224).stem_kind == "imagenet"
    assert image_notes(model_config("resnet18", stem="auto", image_size=32)) == [
        "stem: cifar, chosen for images of 32 pixels"
    ]
    (note,) = image_notes(model_config("resnet18", image_size=32))
    assert "8×8" in note
    assert "stem=cifar" in note
    assert image_notes(model_config("resnet18")) == []
    assert image_notes(model_config("cifar_resnet20")) == []


def test_strides_and_widths_are_free():
    net = create_model("resnet18", depths=(1, 1, 1), widths=(8, 24, 16), strides=(2, 3, 1), stem="cifar", device="meta")
    assert net.forward_features(torch.empty(1, 3, 36, 36, device="meta")).shape == (1, 16, 6, 6)


def test_labml_setting_downsamples_once_has_biases_and_no_relu_behind_its_stem():
    net = create_model(
        "resnet18",
        strides=(2, 1, 1, 1),
        stem_pool=False,
        stem_activation=False,
        conv_bias=True,
        num_classes=0,
        device="meta",
    )
    assert [name for name, _ in net.stem.named_children()] == ["conv", "norm"]
    features = net.forward_features(torch.empty(1, 3, 64, 64, device="meta"))
    assert features.shape == (1, 512, 16, 16)
    assert all(m.bias is not None for m in net.modules() if isinstance(m, nn.Conv2d))


def test_zoo_lists_the_names_of_the_field():
    expected = [
        "resnetv2_50",
        "resnext101_64x4d",
        "wide_resnet101_2",
        "seresnext50_32x4d",
        "resnet200d",
        "wide_resnet28_10",
    ]
    assert set(expected) <= set(list_models())


def test_config_checks_the_style_too():
    with pytest.raises(ConfigError, match="se_reduction"):
        ResNetConfig(depths=(1,), widths=(8,), se_reduction=-1)
