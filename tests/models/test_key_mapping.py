"""Names of other projects: known ones, and bijections."""

import pytest
import torch

from resnetlab.core.errors import CheckpointError, ConfigError
from resnetlab.models.dialects import DIALECTS
from resnetlab.models.key_mapping import find_dialect, head_names, their_names
from resnetlab.models.weights import export_weights, load_weights
from resnetlab.models.zoo import create_model

SMALL = {"widths": [4, 8, 16, 32], "num_classes": 5, "image_size": 32}
THREE = {"widths": [4, 8, 16], "stem_width": 4, "num_classes": 5}
LABML = {
    "strides": [2, 1, 1, 1],
    "stem_pool": False,
    "stem_activation": False,
    "conv_bias": True,
    **SMALL,
}
MEMBERS = [
    ("torchvision", "resnet18", SMALL),
    ("torchvision", "resnet50", SMALL),
    ("torchvision", "wide_resnet50_2", SMALL),
    ("torchvision", "resnext50_32x4d", {**SMALL, "widths": [16, 32, 64, 128]}),
    ("torchvision", "vgg11_bn", {}),
    ("timm", "resnet50", SMALL),
    ("timm", "resnet18d", SMALL),
    ("timm", "resnet50d", SMALL),
    ("timm", "resnetv2_18", SMALL),
    ("timm", "resnetv2_50", SMALL),
    ("timm", "seresnet50", SMALL),
    ("timm", "seresnext50_32x4d", {**SMALL, "widths": [16, 32, 64, 128]}),
    ("timm", "vgg11_bn", {}),
    ("akamaster", "cifar_resnet8", {**THREE, "pad": "center"}),
    ("akamaster", "cifar_resnet8", {**THREE, "shortcut": "B"}),
    ("labml", "resnet18", LABML),
    ("labml", "resnet50", {**LABML, "num_classes": 0}),
]

# Read off the state dicts of torchvision 0.28 and timm 1.0.31, and off the sources of the other two.
KNOWN = [
    ("torchvision", "resnet50", {}, "stem.conv.weight", "conv1.weight", (64, 3, 7, 7)),
    ("torchvision", "resnet50", {}, "stages.2.5.branch.norm3.running_var", "layer3.5.bn3.running_var", (1024,)),
    ("torchvision", "resnet50", {}, "stages.0.0.shortcut.norm.bias", "layer1.0.downsample.1.bias", (256,)),
    ("torchvision", "vgg16_bn", {}, "stages.4.7.running_mean", "features.41.running_mean", (512,)),
    ("torchvision", "vgg19", {}, "hidden.3.bias", "classifier.3.bias", (4096,)),
    ("timm", "resnet50d", {}, "stem.conv.weight", "conv1.6.weight", (64, 32, 3, 3)),
    ("timm", "resnet50d", {}, "stages.0.0.shortcut.conv.weight", "layer1.0.downsample.1.weight", (256, 64, 1, 1)),
    ("timm", "seresnet50", {}, "stages.0.0.branch.se.fc1.weight", "layer1.0.se.fc1.weight", (16, 256, 1, 1)),
    ("timm", "resnetv2_50", {}, "stages.0.2.preactivation.norm.weight", "stages.0.blocks.2.norm1.weight", (256,)),
    ("timm", "resnetv2_50", {}, "stages.0.2.branch.norm2.weight", "stages.0.blocks.2.norm3.weight", (64,)),
    ("timm", "resnetv2_50", {}, "final.norm.weight", "norm.weight", (2048,)),
    ("timm", "resnetv2_50", {}, "head.weight", "head.fc.weight", (1000, 2048, 1, 1)),
    ("timm", "vgg11", {}, "hidden.0.weight", "pre_logits.fc1.weight", (4096, 512, 7, 7)),
    ("akamaster", "cifar_resnet20", {"pad": "center"}, "head.weight", "linear.weight", (10, 64)),
    ("labml", "resnet18", LABML, "stages.1.1.branch.norm2.bias", "0.blocks.3.bn2.bias", (8,)),
    ("labml", "resnet18", LABML, "head.bias", "1.bias", (5,)),
]


def made(name, settings):
    """The network with a number of its own in every tensor; without drawing VGG's 130 million."""
    net = create_model(name, device="meta", **settings).to_empty(device="cpu")
    with torch.no_grad():
        for number, tensor in enumerate(net.state_dict().values()):
            tensor.fill_(number)
    return net


@pytest.mark.parametrize(("dialect", "name", "settings", "ours", "theirs", "shape"), KNOWN)
def test_known_names_are_theirs(dialect, name, settings, ours, theirs, shape):
    net = create_model(name, device="meta", **settings)
    assert their_names(net, dialect)[ours][:2] == (theirs, shape)


@pytest.mark.parametrize(("dialect", "name", "settings"), MEMBERS)
def test_round_trip_renames_every_key_and_keeps_every_value(dialect, name, settings):
    net = made(name, settings)
    exported = export_weights(net, dialect)
    assert len(exported) == len(net.state_dict())
    assert find_dialect(exported) in (dialect, "torchvision")
    twin = create_model(name, device="meta", **settings).to_empty(device="cpu")
    report = load_weights(twin, exported)
    assert len(report.matched) + len(report.renamed) == len(exported)
    assert all(torch.equal(twin.state_dict()[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize(("dialect", "name", "settings"), MEMBERS)
def test_head_names_are_known_without_a_head(dialect, name, settings):
    if settings.get("num_classes") == 0:
        pytest.skip("labml's names differ with and without a head")
    net = create_model(name, device="meta", **settings)
    found = their_names(net, dialect)
    assert head_names(net, dialect) == (found["head.weight"].name, found["head.bias"].name)
    if dialect != "labml":
        assert head_names(net.reset_classifier(0), dialect) == (found["head.weight"].name, found["head.bias"].name)


@pytest.mark.parametrize(
    ("dialect", "name", "settings", "remedy"),
    [
        ("akamaster", "cifar_resnet20", {}, "pad='center'"),
        ("akamaster", "cifar_resnet20", {"pad": "center", "stem": "imagenet"}, "stem='cifar'"),
        ("akamaster", "resnet50", {"stem": "cifar"}, "branch='basic'"),
        ("loss-landscape", "resnet50", {"stem": "cifar", "shortcut": None}, "branch='basic'"),
        ("kuangliu", "resnetv2_18", {"stem": "cifar"}, "final_norm=False"),
        ("timm", "resnetv2_18", {"final_norm": False}, "final_norm=True"),
        ("timm", "resnet50", {"norm": "group"}, "norm_groups=32"),
        ("keras", "resnet50", {}, "norm_eps=1.001e-05"),
        ("keras", "resnetv2_50", {"norm_eps": 1.001e-5, "conv_bias": True}, "stride_at='last'"),
        ("torchvision", "resnet50", {"norm_eps": 1.001e-5}, "norm_eps=1e-05"),
        ("fixup", "cifar_resnet20", {"norm": "none", "scaling": "fixup"}, "scaling='fixup_scalar'"),
        ("labml", "resnet18", {**LABML, "stem": "cifar"}, "stem_stride=2"),
        ("torchvision", "resnet18", {"stem": "cifar", "stem_stride": 2}, "stem_stride=1"),
        ("torchvision", "resnet50", {"stride_in": "1x1"}, "stride_in='3x3'"),
        ("torchvision", "resnet18", {"shortcut": "A"}, "shortcut='B'"),
        ("torchvision", "resnet18", {"activation": "gelu"}, "activation='relu'"),
        ("torchvision", "resnet18", {"strides": [2, 2, 2, 2]}, r"strides=\(1, 2, 2, 2\)"),
        ("torchvision", "resnetv2_50", {}, "no network of kind 'pre'"),
        ("torchvision", "seresnet50", {}, "no name for"),
        ("timm", "mlp_resnet8", {}, "no network of kind 'mlp'"),
        ("timm", "resnet18", {"scaling": "rezero"}, "scaling='none'"),
        ("akamaster", "cifar_resnet20", {"shortcut": "scaled"}, "shortcut='A'"),
        ("labml", "resnet18", {}, "stem_activation=False"),
        ("tochvision", "resnet18", {}, "did you mean 'torchvision'"),
    ],
)
def test_network_that_a_project_cannot_have_is_refused_with_the_remedy(dialect, name, settings, remedy):
    with pytest.raises(ConfigError, match=remedy):
        their_names(create_model(name, device="meta", **settings), dialect)


def test_names_of_nobody_are_refused():
    with pytest.raises(CheckpointError, match=r"'encoder.weight'.*known are resnetlab, torchvision"):
        find_dialect(["encoder.weight", "decoder.weight"])
    assert DIALECTS[0] == "resnetlab"
