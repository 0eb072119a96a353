import pytest
import torch
from torch import nn

from resnetlab.core.errors import ConfigError
from resnetlab.models.summary import summarise
from resnetlab.models.vgg import VGGConfig
from resnetlab.models.zoo import create_model, model_config


@pytest.mark.parametrize(("name", "layers"), [("vgg11", 11), ("vgg13", 13), ("vgg16", 16), ("vgg19", 19)])
@pytest.mark.parametrize("norm", ["", "_bn"])
def test_vgg_has_as_many_weight_layers_as_its_name_says(name, layers, norm):
    assert summarise(model_config(name + norm)).weight_layers == layers


def test_vgg_stages_end_at_half_the_map():
    stages = summarise(model_config("vgg19")).stages
    assert [s.output for s in stages if s.name.startswith("stages")] == [
        (64, 112, 112),
        (128, 56, 56),
        (256, 28, 28),
        (512, 14, 14),
        (512, 7, 7),
    ]


def test_pool_to_seven_changes_nothing_at_224_pixels():
    net = create_model("vgg11", device="meta")
    assert net.pool.output_size == 7
    x = torch.randn(1, 512, 7, 7)
    assert torch.equal(net.pool(x), x)


def test_norm_stands_behind_every_convolution():
    kinds = [type(module) for module in create_model("vgg13_bn", device="meta").stages.modules()]
    followers = [kinds[i + 1] for i, kind in enumerate(kinds[:-1]) if kind is nn.Conv2d]
    assert len(followers) == 10
    assert set(followers) == {nn.BatchNorm2d}


def test_small_images_go_through_with_few_classes():
    # Without drawing its 130 million weights.
    net = create_model("vgg11", num_classes=5, in_chans=1, device="meta").to_empty(device="cpu").eval()
    assert net(torch.randn(1, 1, 32, 32)).shape == (1, 5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"depths": (1, 1)}, "5 numbers"), ({"dropout": 1.0}, "dropout"), ({"image_size": 16}, "at least 32")],
)
def test_impossible_config_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        VGGConfig(**({"depths": (1, 1, 2, 2, 2)} | overrides))
