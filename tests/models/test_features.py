"""Feature maps have timm's numbers, channels and reductions, and are what the named modules give."""

import pytest
import torch

from resnetlab.core.errors import ConfigError
from resnetlab.models.zoo import create_model

# timm 1.0.31: timm.create_model(name, features_only=True).feature_info, channels() and reduction().
TIMM = {
    "resnet18": ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
    "resnet50d": ((64, 256, 512, 1024, 2048), (2, 4, 8, 16, 32)),
    "resnetv2_50": ((64, 256, 512, 1024, 2048), (2, 4, 8, 16, 32)),
    "vgg11_bn": ((64, 128, 256, 512, 512, 512), (1, 2, 4, 8, 16, 32)),
}
SMALL = {
    "cifar_resnet8": ((16, 16, 32, 64), (1, 1, 2, 4)),
    "cifar_preact_resnet20": ((16, 16, 32, 64), (1, 1, 2, 4)),
}


@pytest.mark.parametrize(("name", "expected"), (TIMM | SMALL).items())
@torch.no_grad()
def test_maps_have_the_channels_and_sides_that_are_told_and_are_outputs_of_their_modules(name, expected):
    net, maps = create_model(name).eval(), create_model(name, features_only=True).eval()
    assert (tuple(maps.feature_info.channels()), tuple(maps.feature_info.reduction())) == expected
    assert list(maps.feature_info) == net.feature_info
    kept = {}
    for module in maps.feature_info.module_name():
        net.get_submodule(module).register_forward_hook(lambda _, __, out, name=module: kept.update({name: out}))
    x = torch.randn(1, 3, 64, 64)
    net(x)
    found = maps(x)
    assert [tuple(one.shape) for one in found] == [(1, c, 64 // r, 64 // r) for c, r in zip(*expected, strict=True)]
    for one, module in zip(found, maps.feature_info.module_name(), strict=True):
        assert torch.equal(one, kept[module])


@pytest.mark.parametrize(
    ("asked", "numbers"), [((1, 3), [1, 3]), ((-1,), [4]), (2, [3, 4]), ([3, 1], [1, 3]), (None, [0, 1, 2, 3, 4])]
)
def test_out_indices_are_timms_and_what_is_behind_the_last_is_left_out(asked, numbers):
    maps = create_model("resnet18", features_only=True, out_indices=asked, device="meta")
    assert maps.feature_info.channels() == [[64, 64, 128, 256, 512][number] for number in numbers]
    assert len(maps.steps) == numbers[-1] + 1
    assert len(maps(torch.empty(1, 3, 64, 64, device="meta"))) == len(numbers)


@pytest.mark.parametrize("asked", [(5,), (-6,), (), 6, 0])
def test_numbers_that_the_network_has_not_are_refused(asked):
    with pytest.raises(ConfigError, match="out_indices"):
        create_model("resnet18", features_only=True, out_indices=asked, device="meta")


def test_a_network_of_vectors_has_no_maps():
    with pytest.raises(ConfigError, match="forward_intermediates"):
        create_model("mlp_resnet8", features_only=True)
    assert create_model("mlp_resnet8").feature_info == []
