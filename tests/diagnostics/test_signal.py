from dataclasses import replace
from math import log10, sqrt
from statistics import fmean

import pytest
import torch

from resnetlab.core.errors import ConfigError
from resnetlab.diagnostics.signal import ORDERS, RULE, explain, judge, measure_signal, own_setting, signal_grid
from resnetlab.models.init import build
from resnetlab.models.zoo import create_model, model_config
from tests.made import block_statistics, diagnosis


def read(name: str, **settings):
    net = create_model(name, in_chans=1, num_classes=10, image_size=8, **settings)
    images = torch.randn(16, 1, 8, 8)
    return measure_signal(net, images, torch.arange(16) % 10, {"model": name})


def test_fully_connected_net_of_scaled_identities_gives_the_orders_solved_by_hand():
    """Every branch is zero and its shortcut 2·x: the signal grows by 2 a block, the gradient too."""
    net = create_model("mlp_resnet21", in_chans=1, num_classes=3, image_size=4, widths=(8,)).double()
    for stage in net.stages:
        for block in stage:
            block.shortcut, block.activation = Double(), torch.nn.Identity()
            for parameter in block.branch.parameters():
                torch.nn.init.zeros_(parameter)
    found = measure_signal(net, torch.rand(4, 1, 4, 4).double(), torch.tensor([0, 1, 2, 0]), {})
    blocks = found.blocks
    assert found.forward == pytest.approx(blocks * 0.30102999566398, abs=1e-10)
    assert found.backward == pytest.approx(blocks * 0.30102999566398, abs=1e-10)
    assert found.verdict == "exploding"


@pytest.mark.parametrize(
    ("ends", "forward", "backward", "verdict"),
    [
        ((1.0, 50.0, 4.0, 4.0), log10(50), 0.0, "steady"),
        ((2.0, 2000.0, 1.0, 1.0), 3.0, 0.0, "exploding"),
        ((1.0, 1.0, 1e-4, 1.0), 0.0, 4.0, "exploding"),
        ((5.0, 0.005, 1.0, 1.0), -3.0, 0.0, "vanishing"),
        ((1.0, 1.0, 1.0, 1e-5), 0.0, -5.0, "vanishing"),
        ((1.0, 100.0, 1.0, 0.01), 2.0, -2.0, "steady"),
        ((1.0, None, 1.0, 1.0), None, 0.0, "broken"),
        ((1.0, 1.0, 0.0, 1.0), 0.0, None, "silent"),
    ],
)
def test_judge_reads_the_four_ends_of_a_net(ends, forward, backward, verdict):
    """First input and last output going forward, last output and first input going back; what lies between is not."""
    start, end, gradient_start, gradient_end = ends
    first = block_statistics(0, input_rms=start, output_rms=1e9, gradient_in_rms=gradient_end, gradient_out_rms=1e9)
    last = block_statistics(2, input_rms=1e9, output_rms=end, gradient_in_rms=1e9, gradient_out_rms=gradient_start)
    found = judge([first, block_statistics(1), last], {})
    assert (found.verdict, found.blocks) == (verdict, 3)
    for value, expected in ((found.forward, forward), (found.backward, backward)):
        assert value == (None if expected is None else pytest.approx(expected, abs=1e-10))


class Double(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def test_verdicts_of_known_nets():
    assert read("cifar_resnet20").verdict == "steady"
    assert read("cifar_plain56").verdict == "exploding"
    assert read("mlp_plain128").verdict == "steady"  # what He's initialisation is made for
    assert read("mlp_plain128", init="xavier").verdict == "vanishing"
    assert read("mlp_resnet128").verdict == "exploding"
    assert read("mlp_resnet128", scale_residual=True).verdict == "steady"
    assert f"+{ORDERS:g}" in RULE


def test_xavier_halves_signal_and_gradient_in_each_relu_layer_and_he_keeps_them():
    """E[a²] becomes n σ²/2 of what it was: 1/2 with σ² = 2/(n + n), 1 with σ² = 2/n; and ∂L/∂a alike, going back.

    20 layers of width 512: log10 √(1/2) each, in expectation. Of one layer ‖a‖² has the relative variance 5/n, so that
    log10 of the root mean square varies by √(5/n) / (2 ln 10) = 0.021 a layer, and by 0.1 over 20 of them.
    """
    found = {}
    for init in ("he", "xavier"):
        results = [
            measure_signal(
                create_model("mlp_plain22", widths=(512,), image_size=8, init=init, seed=seed).double(),
                torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(seed)).double(),
                torch.arange(16) % 10,
                {},
            )
            for seed in range(4)
        ]
        found[init] = [(result.forward, result.backward) for result in results]
    halved = 20 * log10(sqrt(1 / 2))
    assert halved == pytest.approx(-3.0103, abs=1e-4)
    for number in (0, 1):
        he, xavier = ([result[number] for result in found[init]] for init in ("he", "xavier"))
        assert fmean(he) == pytest.approx(0, abs=0.2)
        assert fmean(xavier) == pytest.approx(halved, abs=0.2)
        # The draws are the same, and a net of ReLUs is homogeneous: the rest is the rounding of weights in float32.
        if number == 0:
            assert [b - a for a, b in zip(he, xavier, strict=True)] == [pytest.approx(halved, abs=1e-6)] * 4


def test_overflow_is_broken_and_a_zeroed_plain_net_is_silent():
    assert read("mlp_resnet1000").verdict == "broken"
    net = create_model("mlp_plain20", in_chans=1, num_classes=10, image_size=8)
    torch.nn.init.zeros_(net.stages[0][0].branch.linear2.weight)
    found = measure_signal(net, torch.randn(4, 1, 8, 8), torch.arange(4), {})
    assert (found.verdict, found.forward) == ("silent", None)


def test_steady_settings_are_named_where_the_own_is_not():
    found = explain(diagnosis())
    assert found.verdict == "exploding"
    assert "1 of 3 settings are steady" in found.sentences[0]
    assert "start zero" in found.advice[0]


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
