import hashlib
import os
import subprocess
import sys
from math import sqrt

import pytest
import torch

from resnetlab.core.errors import ConfigError
from resnetlab.core.randomness import generator
from resnetlab.models.architectures import config_from_plain, config_to_plain
from resnetlab.models.blocks import ResidualBlock, last_scale
from resnetlab.models.zoo import create_model, model_config
from tests.conftest import ROOT

PAIRS = [
    ("cifar_plain20", "cifar_resnet20", {}),
    ("cifar_plain20", "cifar_resnet20", {"shortcut": "C"}),
    ("cifar_plain20", "cifar_resnet20", {"init": "xavier"}),
    ("plain18", "resnet18", {}),
    ("mlp_plain9", "mlp_resnet9", {"widths": (16, 24)}),
]


@pytest.mark.parametrize(("plain", "residual", "overrides"), PAIRS)
def test_twins_start_from_equal_shared_weights(plain, residual, overrides):
    shared = {key: value for key, value in overrides.items() if key != "shortcut"}
    ours = create_model(plain, seed=5, **shared).state_dict()
    theirs = create_model(residual, seed=5, **overrides).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert all(".shortcut." in name for name in theirs.keys() - ours.keys())


def test_another_seed_gives_other_weights():
    first, second = (create_model("cifar_resnet8", seed=seed).state_dict() for seed in (0, 1))
    drawn = [name for name, value in first.items() if value.dim() > 1]
    assert drawn
    assert not any(torch.equal(first[name], second[name]) for name in drawn)


def test_layers_of_equal_shape_start_from_different_weights():
    weights = [p for p in create_model("cifar_resnet20").parameters() if p.shape == (16, 16, 3, 3)]
    assert len(weights) == 6
    assert not any(torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


def test_two_processes_give_equal_bits():
    """This one, and another whose hashes and global random state are others."""
    code = (
        "import torch; from resnetlab.models.zoo import create_model; from tests.models.test_init import digest\n"
        "torch.manual_seed(1); print(digest(create_model('cifar_resnet8', seed=3)))"
    )
    hashes = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    settings = {"PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=settings)
    assert done.stdout.strip() == digest(create_model("cifar_resnet8", seed=3))


def digest(net: torch.nn.Module) -> str:
    sums = hashlib.sha256()
    for value in net.state_dict().values():
        sums.update(value.numpy().tobytes())
    return sums.hexdigest()


def test_global_random_state_is_untouched():
    before = torch.random.get_rng_state()
    create_model("cifar_resnet8", seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_have_the_variance_of_he_and_the_head_half_of_it():
    net = create_model("resnet18", num_classes=2000)
    conv = net.stages[3][1].branch.conv2.weight
    assert conv.std().item() == pytest.approx(sqrt(2 / (512 * 9)), rel=0.01)
    assert net.head.weight.std().item() == pytest.approx(sqrt(1 / 512), rel=0.01)
    assert not net.head.bias.any()


@pytest.mark.parametrize(
    ("name", "settings", "layer", "fans"),
    [
        ("resnet18", {}, "stem.conv", 3 * 49 + 64 * 49),
        ("resnet18", {}, "stages.3.0.branch.conv1", 256 * 9 + 512 * 9),
        ("resnet18", {}, "stages.3.1.branch.conv2", 512 * 9 + 512 * 9),
        ("resnet18", {}, "stages.3.0.shortcut.conv", 256 + 512),
        ("resnext50_32x4d", {}, "stages.3.1.branch.conv2", 32 * 9 + 32 * 9),  # 1024 channels in 32 groups
        ("resnet18", {"num_classes": 2000}, "head", 512 + 2000),
        ("mlp_resnet20", {"widths": (400, 300)}, "stages.1.0.branch.linear1", 400 + 300),
    ],
)
def test_xavier_weights_have_variance_two_over_both_fans(name, settings, layer, fans):
    """Glorot & Bengio 2010, eq. 12. The variance of n normal draws has the standard error √(2/n) of its value."""
    weight = create_model(name, init="xavier", **settings).get_submodule(layer).weight.double()
    assert weight.square().mean().item() * fans / 2 == pytest.approx(1, abs=4 * sqrt(2 / weight.numel()))
    assert weight.mean().item() == pytest.approx(0, abs=4 * sqrt(2 / fans / weight.numel()))
    he = create_model(name, **settings).get_submodule(layer).weight.double()
    assert abs(he.square().mean().item() * fans / 2 - 1) > 4 * sqrt(2 / weight.numel()), "the control"


def test_xavier_draws_are_those_of_he_at_another_scale():
    """So a net of either start differs in nothing but the scale; equal seeds give equal draws, others do not."""
    he, xavier, again = (create_model("cifar_resnet8", seed=4, init=init) for init in ("he", "xavier", "xavier"))
    other = create_model("cifar_resnet8", seed=5, init="xavier")
    for (name, ours), theirs, same, another in zip(
        he.named_parameters(), xavier.parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(theirs, same)
        if ours.dim() > 1:
            ratio = theirs.double().norm() / ours.double().norm()
            torch.testing.assert_close(theirs.double(), ours.double() * ratio, rtol=1e-6, atol=1e-8)
            assert ratio < 1 or name == "head.weight"
            assert not torch.equal(theirs, another)


def test_default_is_hes_to_the_bit():
    net = create_model("cifar_resnet8", seed=3)
    for name, parameter in net.named_parameters():
        if parameter.dim() > 1:
            draws = generator(3, "parameter", name).standard_normal(parameter.shape, dtype="float32")
            fan_in = parameter[0].numel()
            draws *= sqrt((1 if name == "head.weight" else 2) / fan_in)
            assert torch.equal(parameter.detach(), torch.from_numpy(draws)), name


def test_new_head_starts_as_the_net_did():
    net = create_model("resnet18", init="xavier").reset_classifier(2000)
    assert net.head.weight.std().item() == pytest.approx(sqrt(2 / (512 + 2000)), rel=0.01)


def test_unknown_init_is_refused_and_a_configuration_without_one_is_hes():
    with pytest.raises(ConfigError, match="xavier"):
        create_model("cifar_resnet8", init="glorot")
    plain = config_to_plain(model_config("cifar_resnet8"))
    assert plain.pop("init") == "he"
    assert config_from_plain(plain) == model_config("cifar_resnet8")


def test_he_initialisation_keeps_the_variance_of_a_plain_fc_net():
    net = create_model("mlp_plain22", widths=(2000,), image_size=16)
    signal = net.stages(net.stem(torch.randn(64, 256)))
    # E[a²] is kept by every layer (He et al. 2015b, eq. 10); Xavier's variance would halve it 21 times.
    assert signal.square().mean().item() == pytest.approx(1, rel=0.5)


def test_float64_net_starts_from_the_numbers_of_the_float32_net():
    from resnetlab.models.init import initialise

    net = create_model("cifar_resnet8", seed=4)
    double = create_model("cifar_resnet8", seed=9).double()
    initialise(double, seed=4)
    assert torch.equal(net.stem.conv.weight.double(), double.stem.conv.weight)


@pytest.mark.parametrize(("setting", "scale"), [("zero_init_residual", 0.0), ("scale_residual", 1 / 3)])
@pytest.mark.parametrize("name", ["cifar_resnet56", "mlp_resnet20"])
def test_residual_start_scales_the_last_scale_of_every_branch(name, setting, scale):
    usual, started = create_model(name), create_model(name, **{setting: True})
    blocks = [module for module in usual.modules() if isinstance(module, ResidualBlock)]
    twins = [module for module in started.modules() if isinstance(module, ResidualBlock)]
    if setting == "scale_residual":
        scale = len(blocks) ** -0.5
    for block, twin in zip(blocks, twins, strict=True):
        assert torch.equal(last_scale(twin.branch), last_scale(block.branch) * scale)


@pytest.mark.parametrize("name", ["cifar_resnet20", "mlp_resnet20"])
def test_zero_init_makes_same_shape_blocks_the_identity(name):
    net = create_model(name, zero_init_residual=True)
    x = torch.rand(4, 16, 6, 6) if name.startswith("cifar") else torch.rand(4, 64)
    assert torch.equal(net.stages[0](x), x)
