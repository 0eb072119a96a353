"""Each start has the property that defines it, and equals torch's function where torch has one."""

from math import prod, sqrt

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError
from resnetlab.core.randomness import generator
from resnetlab.models.blocks import BasicBranch, BlockStyle, ResidualBlock
from resnetlab.models.init import initialise, layer_places
from resnetlab.models.lsuv import TOLERANCE, lsuv_images, scale_to_unit_variance
from resnetlab.models.starts import delta_orthogonal, identity, orthogonal, orthogonal_weight
from resnetlab.models.zoo import create_model, model_config

LAYER = nn.Conv2d | nn.Linear
SMALL_VGG = {"image_size": 32, "num_classes": 10}


def normal(shape):
    return torch.from_numpy(generator(0, "test", *shape).standard_normal(shape, dtype="float32"))


def spectrum(weight):
    return torch.linalg.svdvals(weight.detach().double().flatten(1))


def layers_of(net):
    return {name: module for name, module in net.named_modules() if isinstance(module, LAYER)}


def images(number, config, seed=1):
    return torch.randn(number, config.in_chans, config.image_size, config.image_size, generator=torch.manual_seed(seed))


@pytest.fixture(autouse=True)
def _own_random_state():
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (9, 5), (16, 3, 3, 3), (4, 8, 3, 3)])
def test_orthogonal_is_torchs_of_the_same_draws(shape, monkeypatch):
    draws = normal((shape[0], prod(shape[1:])))
    monkeypatch.setattr(torch.Tensor, "normal_", lambda self, *_a, **_k: self.copy_(draws))
    theirs = nn.init.orthogonal_(torch.empty(shape))
    torch.testing.assert_close(orthogonal_weight(shape, normal), theirs, rtol=0, atol=2e-6)


def test_orthogonal_matrices_are_evenly_distributed():
    """By the sign fix: without it the trace of Q has a mean that is not 0 (Mezzadri 2007)."""
    draws = torch.from_numpy(generator(0, "haar").standard_normal((4000, 3, 3), dtype="float32"))
    traces = orthogonal(draws).diagonal(dim1=-2, dim2=-1).sum(-1)
    assert abs(float(traces.mean())) < 4 / sqrt(4000)
    assert float(traces.square().mean()) == pytest.approx(1, abs=4 * sqrt(2 / 4000))


@pytest.mark.parametrize("name", ["cifar_plain8", "mlp_resnet9", "cifar_preact_resnet20"])
def test_orthogonal_weights_are_isometries_times_their_gain(name):
    net = create_model(name, init="orthogonal", seed=3)
    for layer, module in layers_of(net).items():
        gain = 1 if layer == "head" else sqrt(2)
        torch.testing.assert_close(
            spectrum(module.weight) / gain, torch.ones(min(module.weight.flatten(1).shape)).double()
        )


def test_draws_come_from_the_stream_of_the_parameter():
    weight = create_model("mlp_plain9", init="orthogonal", seed=3).stages[0][1].branch.linear2.weight
    draws = generator(3, "parameter", "stages.0.1.branch.linear2.weight").standard_normal((64, 64), dtype="float32")
    assert torch.equal(weight, orthogonal(torch.from_numpy(draws)) * sqrt(2))


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(4, 4, 1), (3, 16, 1), (8, 16, 4)])
def test_delta_orthogonal_keeps_the_norm_of_every_circular_padded_input(inputs, outputs, groups):
    weight = delta_orthogonal((outputs, inputs // groups, 3, 3), normal, groups)
    x = torch.randn(2, inputs, 7, 7)
    y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight, groups=groups)
    torch.testing.assert_close(y.square().sum(1), x.square().sum(1))
    shared = orthogonal_weight((outputs, inputs // groups, 3, 3), normal)
    other = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), shared, groups=groups)
    assert not torch.allclose(other.square().sum(1), x.square().sum(1), rtol=0.05), "the control"


def test_delta_orthogonal_with_fewer_outputs_projects():
    weight = delta_orthogonal((4, 8, 3, 3), normal)
    tap = weight[:, :, 1, 1].double()
    torch.testing.assert_close(tap @ tap.T, torch.eye(4).double(), rtol=0, atol=1e-6)
    assert weight.count_nonzero() == 32


def test_delta_orthogonal_net_has_its_gains():
    net = create_model("cifar_plain8", init="delta_orthogonal")
    assert torch.linalg.svdvals(net.stages[1][0].branch.conv1.weight[:, :, 1, 1]).tolist() == pytest.approx(
        [2**0.5] * 16
    )
    assert spectrum(net.head.weight).tolist() == pytest.approx([1] * 10)


@pytest.mark.parametrize(
    ("shape", "groups"), [((8, 8, 3, 3), 1), ((8, 4, 3, 3), 2), ((4, 8, 1, 1), 1), ((8, 2, 5, 5), 2)]
)
def test_identity_is_torchs_dirac(shape, groups):
    assert torch.equal(identity(shape, groups), nn.init.dirac_(torch.empty(shape), groups))
    assert torch.equal(identity((5, 3)), nn.init.eye_(torch.empty(5, 3)))


@pytest.mark.parametrize("name", ["cifar_plain8", "mlp_plain9"])
def test_dirac_without_noise_makes_plain_blocks_the_identity(name):
    options = {} if name.startswith("mlp") else {"norm": "none"}
    net = create_model(name, init="dirac", dirac_noise=0.0, **options)
    x = torch.rand(4, 16, 6, 6) if options else torch.rand(4, 64)
    assert torch.equal(net.stages[0](x), x)


def test_dirac_is_the_identity_plus_a_share_of_he_in_branches_and_he_elsewhere():
    options = {"shortcut": "B", "seed": 2}
    he, dirac = (
        create_model("cifar_resnet8", **options),
        create_model("cifar_resnet8", init="dirac", dirac_noise=0.3, **options),
    )
    theirs = layers_of(he)
    for name, module in layers_of(dirac).items():
        want = theirs[name].weight
        if ".branch." in name:
            want = nn.init.dirac_(torch.empty(want.shape)) + 0.3 * want
        torch.testing.assert_close(module.weight, want, rtol=0, atol=1e-7)
    default = create_model("cifar_resnet8", init="dirac", **options).stages[0][0].branch.conv1.weight
    torch.testing.assert_close(default - identity((16, 16, 3, 3)), 0.1 * theirs["stages.0.0.branch.conv1"].weight)


LINEAR = [
    ("cifar_plain14", {"norm": "none"}),
    ("mlp_plain9", {}),
    ("mlp_plain6", {"widths": (8, 6)}),
    ("cifar_preact_resnet20", {"norm": "none"}),
    ("cifar_preact_resnet20", {"norm": "none", "shortcut": None}),
]


@pytest.mark.parametrize(("name", "options"), LINEAR)
def test_looks_linear_nets_are_linear(name, options):
    net = create_model(name, init="looks_linear", image_size=8, **options).double()
    x, y = (images(3, net.config, seed).double() for seed in (1, 2))
    torch.testing.assert_close(net(x) + net(y), net(x + y), rtol=1e-9, atol=1e-9)
    assert net(x).abs().max() > 1e-3
    he = create_model(name, image_size=8, **options).double()
    assert not torch.allclose(he(x) + he(y), he(x + y), rtol=0.01), "the control"


def test_looks_linear_does_not_make_a_post_activation_residual_net_linear():
    """What ``NetConfig`` says of it: the shortcut carries ReLU(z)."""
    net = create_model("mlp_resnet8", init="looks_linear").double()
    x, y = (images(3, net.config, seed).double() for seed in (1, 2))
    assert not torch.allclose(net(x) + net(y), net(x + y), rtol=0.01)


def test_jacobian_of_a_looks_linear_net_is_the_product_of_its_matrices():
    net = create_model("mlp_plain7", init="looks_linear", widths=(12,)).double()
    weights = [module.weight for module in layers_of(net).values()]
    first, *inner, head = weights
    product = first[:6]
    for weight in inner:
        assert torch.equal(weight, torch.cat([torch.cat([weight[:6, :6], -weight[:6, :6]], 1)] * 2) * _signs(weight))
        product = weight[:6, :6] @ product
    product = head[:, :6] @ product
    x = images(1, net.config).double()
    found = torch.autograd.functional.jacobian(net, x).reshape(10, 64)
    torch.testing.assert_close(found, product)
    # Half widths of 6 between 64 pixels and 10 classes: W projects, all behind it is an isometry.
    assert torch.linalg.svdvals(product)[:6].tolist() == pytest.approx([1] * 6, abs=1e-5)


def _signs(weight):
    half = weight.shape[0] // 2
    return torch.cat([torch.ones(half, 1), -torch.ones(half, 1)]).double()


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("mlp_plain8", {"widths": (7,)}, "width of stem.linear1=7"),
        ("cifar_plain8", {"widths": (16, 33, 64)}, "width of stages.1.0.branch.conv1=33"),
        ("resnext50_32x4d", {}, "groups=32"),
        ("seresnet18", {}, "se_reduction=16"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_looks_linear_needs_even_widths_and_whole_maps(name, options, match, device):
    with pytest.raises(ConfigError, match=match):
        create_model(name, init="looks_linear", device=device, **options)


LSUV = [
    ("cifar_plain20", {"norm": "none", "image_size": 12}),
    ("cifar_resnet14", {"image_size": 12, "shortcut": "B"}),
    ("cifar_preact_resnet20", {"image_size": 12}),
    ("mlp_plain40", {}),
    ("mlp_resnet40", {"norm": "layer"}),
    ("seresnet18", {"widths": (8, 8, 16, 16), "stem_width": 8, "image_size": 32}),
    (
        "resnext50_32x4d",
        {
            "depths": (1, 1, 1, 1),
            "widths": (8, 8, 8, 8),
            "base_width": 64,
            "groups": 2,
            "stem_width": 8,
            "image_size": 32,
        },
    ),
]


@pytest.mark.parametrize(("name", "options"), LSUV)
def test_lsuv_gives_every_layer_an_output_of_variance_one(name, options):
    net = create_model(name, init="lsuv", seed=3, **options)
    found = variances(net, lsuv_images(net.config, 3))
    assert len(found) == len(layers_of(net))
    assert max(abs(value - 1) for value in found.values()) <= TOLERANCE + 1e-4
    # Weights are orthogonal up to a factor.
    for module in layers_of(net).values():
        values = spectrum(module.weight)
        assert float(values.min() / values.max()) == pytest.approx(1, abs=1e-4)
    control = variances(create_model(name, init="orthogonal", seed=3, **options), lsuv_images(net.config, 3))
    assert max(abs(value - 1) for value in control.values()) > 0.2, "the control"


def variances(net, batch):
    """As they are, in a pass of its own: batch norm takes the batch's statistics, nothing is dropped."""
    found = {}
    for name, module in layers_of(net).items():
        module.register_forward_hook(lambda _m, _i, out, name=name: found.update({name: float(out.var(correction=0))}))
    for module in net.eval().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    with torch.no_grad():
        net(batch)
    return found


def test_lsuv_leaves_the_net_as_new_and_random_state_alone():
    before = torch.random.get_rng_state()
    net = create_model(
        "wide_resnet16_4", init="lsuv", widths=(8, 8, 8), image_size=8, dropout=0.5, stochastic_depth=0.5
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    norm = net.stages[0][0].branch.norm1
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm.running_var, torch.ones(8))
    assert net.training
    assert norm.training
    assert not net.stem.conv._forward_hooks
    again = create_model(
        "wide_resnet16_4", init="lsuv", widths=(8, 8, 8), image_size=8, dropout=0.5, stochastic_depth=0.5
    )
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("name", "options"),
    [("mlp_resnet8", {"zero_init_residual": True}), ("cifar_resnet8", {"norm": "none", "scaling": "skipinit"})],
)
def test_lsuv_ends_on_layers_that_give_nothing(name, options):
    net = create_model(name, init="lsuv", image_size=8, **options)
    assert all(value.isfinite().all() for value in net.state_dict().values())
    dead = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        dead[0].weight.zero_()
    kept = dead[2].weight.clone()
    scale_to_unit_variance(dead, torch.randn(8, 4))
    assert not dead[0].weight.any()
    assert torch.equal(dead[2].weight, kept)


@pytest.mark.parametrize("init", ["orthogonal", "delta_orthogonal", "dirac", "looks_linear", "tat"])
def test_plain_and_residual_nets_share_their_start(init):
    ours = create_model("cifar_plain14", seed=5, init=init).state_dict()
    theirs = create_model("cifar_resnet14", seed=5, init=init, shortcut="B" if init != "tat" else None).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_plain_and_residual_lsuv_nets_share_directions():
    ours = layers_of(create_model("mlp_plain12", seed=5, init="lsuv"))
    theirs = layers_of(create_model("mlp_resnet12", seed=5, init="lsuv"))
    for name, layer in ours.items():
        torch.testing.assert_close(
            F.normalize(layer.weight.flatten(), dim=0), F.normalize(theirs[name].weight.flatten(), dim=0)
        )


@pytest.mark.parametrize("init", ["orthogonal", "delta_orthogonal", "dirac", "looks_linear", "lsuv"])
def test_new_heads_start_too(init):
    net = create_model("cifar_resnet8", init=init, image_size=8).reset_classifier(6)
    assert net.head.weight.shape == (6, 64)
    size = 2 if init == "looks_linear" else 1
    if init != "dirac":
        assert spectrum(net.head.weight).tolist() == pytest.approx([sqrt(size)] * 6, abs=1e-5)


def test_places():
    net = create_model("seresnet18", device="meta")
    found = layer_places(net)
    assert found["stem.conv"] == "first"
    assert found["head"] == "head"
    assert found["stages.0.0.branch.conv1"] == "branch"
    assert found["stages.0.0.branch.se.fc1"] == found["stages.1.0.shortcut.conv"] == "other"


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("cifar_resnet8", {"dirac_noise": 0.2}, "init='dirac'"),
        ("cifar_resnet8", {"init": "dirac", "dirac_noise": -1.0}, "from 0 on"),
        ("cifar_resnet8", {"init": "lsuv", "scale_residual": True}, "exclude each other"),
        ("cifar_resnet8", {"init": "lsuv", "norm": "none", "scaling": "fixup"}, "scaling='fixup'"),
        ("vgg11", {"init": "dirac"}, "VGG has no blocks"),
        ("vgg11", {"init": "tat"}, "VGG has no blocks"),
        ("vgg11", {"dirac_noise": 0.2}, "dirac_noise"),
    ],
)
def test_what_does_not_fit_is_refused(name, options, match):
    with pytest.raises(ConfigError, match=match):
        model_config(name, **options)


def test_float64_nets_start_from_the_float32_numbers():
    net = create_model("cifar_plain8", seed=4, init="delta_orthogonal")
    double = create_model("cifar_plain8", seed=9).double()
    initialise(double, seed=4, init="delta_orthogonal")
    assert all(torch.equal(a.double(), b) for a, b in zip(net.parameters(), double.parameters(), strict=True))


def test_block_of_dirac_is_near_the_identity_with_a_little_noise():
    branch = BasicBranch(16, 16, style=BlockStyle(norm="none"))
    net = nn.ModuleDict({"block": ResidualBlock(branch, None)})
    x = torch.rand(4, 16, 8, 8)
    errors = []
    for noise in (0.0, 0.05, 0.1, 1.0):
        initialise(net, seed=0, init="dirac", dirac_noise=noise)
        # The first layer of a net is its stem.
        initialise(
            nn.ModuleDict({"stem": nn.Linear(1, 1), "block": net["block"]}), seed=0, init="dirac", dirac_noise=noise
        )
        errors.append(float((net["block"](x).detach() - x).norm() / x.norm()))
    assert errors[0] == 0
    assert 0 < errors[1] < errors[2] < 0.3 < errors[3]
