from dataclasses import replace

import pytest

from resnetlab.core.errors import ConfigError
from resnetlab.diagnostics.signal_grid import own_setting, signal_grid
from resnetlab.models.init import build
from resnetlab.models.zoo import model_config

NAMES = ["cifar_resnet20", "cifar_plain20", "cifar_preact_resnet11", "mlp_resnet9", "mlp_plain8", "resnet50"]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_builds_and_is_another(name):
    grid = signal_grid(model_config(name))
    assert len({tuple(words.values()) for words, _ in grid}) == len({config for _, config in grid}) == len(grid)
    for words, config in grid:
        assert (config.shortcut is None) is (words["kind"] == "plain")
        build(config, seed=0, device="meta")
    own = own_setting(model_config(name))
    assert own["kind"] == ("plain" if "plain" in name else "residual")
    assert own["start"] == "He"
    assert own_setting(replace(model_config(name), init="xavier")) == own | {"start": "Xavier"}


def test_starts_without_a_norm_are_six_and_of_a_plain_net_two():
    settings = [words for words, _ in signal_grid(model_config("cifar_resnet20")) if words["blocks"] == "27"]
    starts = [words["start"] for words in settings if (words["kind"], words["norm"]) == ("residual", "none")]
    assert starts == ["He", "Xavier", "zero branch", "1/√L branch", "SkipInit", "Fixup"]
    assert [words["start"] for words in settings if words["kind"] == "plain"] == ["He", "Xavier"] * 3
    assert len(settings) == 3 * 2 + 4 + 4 + 6


def test_each_start_is_drawn_as_its_name_says():
    """A network's own start does not leak into the others of its grid."""
    for own in ({}, {"init": "xavier"}, {"zero_init_residual": True}):
        for words, config in signal_grid(model_config("cifar_resnet20", **own)):
            assert config.init == ("xavier" if words["start"] == "Xavier" else "he")
            assert config.zero_init_residual is (words["start"] == "zero branch")
            assert config.scale_residual is (words["start"] == "1/√L branch")
            assert config.scaling == (words["start"].lower() if words["start"] in ("SkipInit", "Fixup") else "none")


def test_very_deep_nets_are_compared_with_a_third():
    assert {words["blocks"] for words, _ in signal_grid(model_config("cifar_resnet1202"))} == {"600", "201"}
    assert {words["blocks"] for words, _ in signal_grid(model_config("mlp_resnet1000"))} == {"499", "167"}


def test_net_without_blocks_is_refused():
    with pytest.raises(ConfigError, match="no blocks"):
        signal_grid(model_config("vgg11"))
