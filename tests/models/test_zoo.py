import copy

import pytest
import torch

from resnetlab.core.errors import ConfigError
from resnetlab.models.zoo import FAMILIES, ROWS, create_model, list_models, model_config

SMALL = {"cifar_resnet8", "cifar_plain8", "mlp_resnet8", "mlp_plain8"}


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_the_parameters_that_stand_in_it(name):
    net = create_model(name, device="meta")
    assert sum(parameter.numel() for parameter in net.parameters()) == ROWS[name].parameters


@pytest.mark.parametrize("name", sorted(SMALL))
def test_deepcopy_and_state_dict_round_trip_keep_the_function(name):
    net = create_model(name).eval()
    config = net.config
    x = torch.randn(2, config.in_chans, config.image_size, config.image_size)
    twin = create_model(name, seed=8).eval()
    assert not torch.equal(twin(x), net(x))
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(x), net(x))
    assert torch.equal(copy.deepcopy(net)(x), net(x))


def test_wildcards_select_names():
    assert list_models("resnet1*[0-9]") == ["resnet18", "resnet101", "resnet152"]
    assert list_models("cifar_plain?10") == ["cifar_plain110"]
    assert list_models("nothing*") == []


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56, 110, 128, 1202])
@pytest.mark.parametrize("kind", ["plain", "resnet"])
def test_cifar_takes_every_depth_of_the_rule(kind, depth):
    config = model_config(f"cifar_{kind}{depth}")
    assert config.depths == ((depth - 2) // 6,) * 3


@pytest.mark.parametrize(("wrong", "below", "above"), [(21, 20, 26), (100, 98, 104), (2, 8, 14)])
def test_wrong_depth_names_the_two_nearest_right_ones(wrong, below, above):
    with pytest.raises(ConfigError, match=rf"6n \+ 2; the nearest are cifar_resnet{below} and cifar_resnet{above}"):
        create_model(f"cifar_resnet{wrong}")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ResNet50", "resnet50"),
        ("CIFAR_RESNET20", "cifar_resnet20"),
        ("vgg19bn", "vgg19_bn"),
        ("cifar_resnet", "cifar_resnet20"),
    ],
)
def test_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=nearest.rstrip("0123456789")):
        create_model(name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet35", "resnet34"),
        ("resnet1001", "resnet200"),
        ("seresnet20", "seresnet18"),
        ("resnet60d", "resnet50d"),
        ("resnetv2_40", "resnetv2_34"),
        ("plain50", "plain34"),
        ("resnext152_32x4d", "resnext101_32x4d"),
        ("vgg14", "vgg13"),
    ],
)
def test_a_missing_depth_names_the_nearest_and_how_to_build_any(name, nearest):
    with pytest.raises(ConfigError, match=rf"the nearest depth is '{nearest}'.*depths=") as caught:
        create_model(name)
    depths = list(ROWS[nearest].config.depths)
    assert f"create_model({nearest!r}, depths={depths})" in str(caught.value)
    assert f"--options depths '{depths}'" in str(caught.value)
    assert (
        create_model(nearest, depths=[*depths[:-1], depths[-1] + 1], device="meta").config.depths[-1] == depths[-1] + 1
    )


@pytest.mark.parametrize(
    "name", ["", "20", "resnet", "cifar_resnet20x", "cifar_resnet-20", "../x", "cifar_resnet020", "cifar_resnet0"]
)
def test_strange_names_are_refused(name):
    with pytest.raises(ConfigError, match="unknown model"):
        create_model(name)


def test_unknown_setting_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="num_classes"):
        create_model("resnet18", num_clases=5)


@pytest.mark.parametrize("value", ["10", 2.5, True])
def test_setting_of_another_type_is_refused(value):
    with pytest.raises(ConfigError, match="num_classes"):
        create_model("resnet18", num_classes=value)


def test_lists_pass_for_tuples():
    assert model_config("mlp_resnet8", widths=[8, 16]).widths == (8, 16)


def test_defaults_are_those_of_the_papers():
    assert {model_config(name).shortcut for name in ("resnet18", "resnet152")} == {"B"}
    assert model_config("cifar_resnet20").shortcut == "A"
    assert model_config("cifar_plain20").shortcut is None


def test_shortcut_none_makes_the_plain_twin():
    assert model_config("cifar_resnet20", shortcut=None) == model_config("cifar_plain20")
    residual, plain = create_model("resnet18", shortcut=None), create_model("plain18")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(residual.eval()(x), plain.eval()(x))


def test_no_family_shares_a_name_with_a_row():
    assert not any(row.startswith(family) for row in ROWS for family in FAMILIES)
