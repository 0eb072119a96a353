import subprocess
import sys
from math import sqrt

import pytest
import torch

from resnetlab.models.blocks import ResidualBlock, last_scale
from resnetlab.models.zoo import create_model

PAIRS = [
    ("cifar_plain20", "cifar_resnet20", {}),
    ("cifar_plain20", "cifar_resnet20", {"shortcut": "C"}),
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
    code = (
        "import hashlib, torch; from resnetlab.models.zoo import create_model; torch.manual_seed({global_seed}); "
        "s = hashlib.sha256(); "
        "[s.update(v.numpy().tobytes()) for v in create_model('cifar_resnet8', seed=3).state_dict().values()]; "
        "print(s.hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code.format(global_seed=seed)],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in (1, 2)
    }
    assert len(digests) == 1


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
