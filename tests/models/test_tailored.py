"""TAT: its C map against wide random nets and numbers by hand; its slope against the condition of the paper."""

from dataclasses import replace
from math import pi, sqrt

import pytest
import torch

from resnetlab.core.errors import ConfigError
from resnetlab.models.architectures import config_from_plain, config_to_plain
from resnetlab.models.config import ResidualConfig
from resnetlab.models.key_mapping import their_names
from resnetlab.models.lookalikes import same_function
from resnetlab.models.surgery import drop_blocks, droppable_blocks, reorder
from resnetlab.models.tailored import ETA, TailoredReLU, c_map, solve_slope
from resnetlab.models.zoo import create_model, model_config

DEEP = [
    ("cifar_plain56", {}, 55),
    ("cifar_preact_resnet20", {"shortcut": None}, 19),
    ("cifar_preact_resnet164", {"shortcut": None, "final_norm": False}, 162),
    ("plain34", {}, 33),
    ("resnet50d", {"shortcut": None}, 51),
    ("resnetv2_50d", {"shortcut": None}, 51),
    ("resnet50", {"shortcut": None, "stem_activation": False}, 48),
    ("mlp_plain128", {}, 127),
    ("mlp_plain33", {}, 32),
]


def tailored(net):
    return [module for module in net.modules() if isinstance(module, TailoredReLU)]


def test_c_map_by_hand():
    """A ReLU takes 0 to 1/π (Cho & Saul 2009), the identity keeps each cosine, every slope keeps 1 and −1 goes to
    −2α/(1 + α²): φ(x)φ(−x) has that mean over φ(x)²."""
    assert c_map(0, 0) == pytest.approx(1 / pi)
    assert [c_map(c, 1) for c in (-1, -0.3, 0, 0.5, 1)] == pytest.approx([-1, -0.3, 0, 0.5, 1])
    for slope in (0, 0.3, 0.8):
        assert c_map(1, slope) == pytest.approx(1)
        assert c_map(-1, slope) == pytest.approx(-2 * slope / (1 + slope**2))


@pytest.mark.parametrize("slope", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("cosine", [0.0, 0.6, -0.5])
def test_c_map_is_what_wide_layers_do(slope, cosine):
    nets, width, depth = 200, 128, 2
    draws = torch.Generator().manual_seed(0)
    pair = torch.zeros(nets, 2, width, dtype=torch.float64)
    pair[:, 0, 0], pair[:, 1, 0], pair[:, 1, 1] = 1, cosine, sqrt(1 - cosine**2)
    act = TailoredReLU(slope)
    for _ in range(depth):
        pair = act(pair @ (torch.randn(nets, width, width, dtype=torch.float64, generator=draws) / sqrt(width)))
    a, b = pair.unbind(dim=1)
    assert float((a * b).sum(-1).mean()) == pytest.approx(c_map(cosine, slope, depth), abs=0.03)
    assert float(a.square().sum(-1).mean()) == pytest.approx(1, abs=0.06)


def test_activation_keeps_the_mean_square_and_is_a_leaky_relu():
    x = torch.linspace(-8, 8, 200_001, dtype=torch.float64)
    density = torch.exp(-(x**2) / 2) / sqrt(2 * pi)
    for slope in (0.0, 0.25, 1.0):
        act = TailoredReLU(slope)
        assert float(torch.trapezoid(act(x) ** 2 * density, x)) == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(act(x), sqrt(2 / (1 + slope**2)) * torch.where(x > 0, x, slope * x))


@pytest.mark.parametrize("depth", [19, 55, 109, 999])
def test_slope_takes_zero_to_eta(depth):
    slope = solve_slope(depth)
    assert 0 < slope < 1
    assert c_map(0, slope, depth) == pytest.approx(ETA, abs=1e-7)
    assert solve_slope(depth + 10) > slope


def test_shallow_net_has_a_relu():
    assert c_map(0, 0, 8) < ETA
    assert solve_slope(8) == 0


@pytest.mark.parametrize(("name", "options", "depth"), DEEP)
def test_depth_counts_the_activations_of_the_net(name, options, depth):
    net = create_model(name, init="tat", device="meta", **options)
    assert isinstance(net.config, ResidualConfig)
    assert net.config.nonlinearities == len(tailored(net)) == depth
    assert {module.slope for module in tailored(net)} == {solve_slope(depth)}
    assert not any(isinstance(module, torch.nn.ReLU) for module in net.modules())


def test_whole_net_takes_orthogonal_images_to_eta():
    """In float64 and wide: the cosine of what a net of 30 layers makes of two images, and their mean square."""
    net = create_model("mlp_plain31", init="tat", widths=(400,), image_size=16, seed=1).double()
    pixels = torch.linalg.qr(torch.randn(256, 2, dtype=torch.float64, generator=torch.manual_seed(0)))[0].T * 16
    with torch.no_grad():
        a, b = net.stages(net.stem(pixels))
    assert float(a @ b / a.norm() / b.norm()) == pytest.approx(ETA, abs=0.05)
    assert 0.4 < float(a.square().mean()) < 2.5


def test_weights_are_scaled_delta_orthogonal():
    net = create_model("cifar_plain8", init="tat", in_chans=3)
    stem, same, wider = net.stem.conv.weight, net.stages[0][0].branch.conv1.weight, net.stages[1][0].branch.conv1.weight
    for weight, gain in ((stem, sqrt(16 / 3)), (same, 1), (wider, sqrt(2)), (net.head.weight[:, :, None, None], 1)):
        tap = weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2]
        assert weight.count_nonzero() == tap.numel()
        assert torch.linalg.svdvals(tap).tolist() == pytest.approx([gain] * min(tap.shape), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("cifar_resnet20", {}, "plain nets"),
        ("mlp_resnet20", {}, "plain nets"),
        ("cifar_plain20", {"activation": "gelu"}, "activation='gelu'"),
        ("seresnet18", {"shortcut": None}, "se_reduction=16"),
        ("cifar_plain20", {"norm": "none", "scaling": "skipinit"}, "scaling='skipinit'"),
        ("cifar_plain20", {"tailored_slope": 1.5}, "tailored_slope=1.5"),
    ],
)
def test_what_does_not_fit_is_refused(name, options, match):
    with pytest.raises(ConfigError, match=match):
        model_config(name, **{"init": "tat"} | options)


def test_slope_without_tat_is_refused():
    with pytest.raises(ConfigError, match="init='tat'"):
        model_config("cifar_plain20", tailored_slope=0.5)


def test_configuration_is_read_back():
    config = model_config("cifar_plain20", init="tat", tailored_slope=0.25)
    assert config_from_plain(config_to_plain(config)) == config
    assert {module.slope for module in tailored(config.make())} == {0.25}


def test_dropped_blocks_leave_the_other_activations_as_they_are():
    net = create_model("cifar_plain20", init="tat", norm="none").eval()
    assert "stages.1.1" in droppable_blocks(net)
    shorter = drop_blocks(net, ["stages.1.1"])
    assert shorter.config.tailored_slope == net.config.slope
    assert {module.slope for module in tailored(shorter)} == {solve_slope(19)} != {solve_slope(17)}
    rebuilt = shorter.config.make()
    rebuilt.load_state_dict(shorter.state_dict())
    x = torch.randn(2, 3, 12, 12, generator=torch.manual_seed(0))
    assert torch.equal(rebuilt.eval()(x), shorter(x))
    assert torch.equal(reorder(net, ["stages.1.2", "stages.1.1"])(x), net(x)) is False


def test_a_tailored_net_is_not_the_one_of_relus():
    tat, he = model_config("cifar_plain20", init="tat"), model_config("cifar_plain20")
    assert not same_function(tat, he)
    assert same_function(tat, replace(tat, tailored_slope=tat.slope))
    assert same_function(he, replace(he, init="orthogonal"))
    for init in ("he", "orthogonal"):
        their_names(create_model("cifar_plain20", init=init, pad="center", device="meta"), "loss-landscape")
    with pytest.raises(ConfigError, match="has 'tat'"):
        their_names(create_model("cifar_plain20", init="tat", pad="center", device="meta"), "loss-landscape")
