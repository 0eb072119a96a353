"""The forward pass of each project's network, written out from its published definition: our network gives the same.

Weights go there and back: theirs, random, load into our network, and our export of it is theirs again.
"""

import pytest
import torch
from torch.nn import functional as F

from resnetlab.models.dialects import DIALECTS, SAME_NAMES
from resnetlab.models.weights import export_weights, load_weights
from resnetlab.models.zoo import create_model

EPS, KERAS_EPS = 1e-5, 1.001e-5
THREE = {"widths": [4, 8, 16], "stem_width": 4, "num_classes": 5}
FOUR = {"widths": [4, 8, 16, 32], "num_classes": 5, "image_size": 32}
CIFAR = {**FOUR, "stem": "cifar"}
LABML = {
    "stem_pool": False,
    "stem_activation": False,
    "conv_bias": True,
    "stem_stride": 2,
    "num_classes": 5,
    "image_size": 32,
}
FIXUP = {"norm": "none", "scaling": "fixup_scalar"}
KERAS = {"norm_eps": KERAS_EPS, "conv_bias": True, **FOUR, "depths": [2, 2, 1, 2]}


def norm(x, w, name, eps=EPS):
    return F.batch_norm(
        x, *[w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")], eps=eps
    )


def conv(x, w, name, stride=1, padding=None):
    weight = w[f"{name}.weight"]
    padding = weight.shape[2] // 2 if padding is None else padding
    return F.conv2d(x, weight, w.get(f"{name}.bias"), stride=stride, padding=padding)


def linear(x, w, name):
    return F.linear(x.mean(dim=(2, 3)), w[f"{name}.weight"], w[f"{name}.bias"])


def blocks_of(w, stage):
    return sorted({int(name.split(".")[1]) for name in w if name.startswith(f"{stage}.")})


def strides_of(stages):
    """(stage, block, stride) for layers whose first blocks halve the map, but for the first layer's."""
    return [(stage, block, 2 if at and not block else 1) for at, (stage, many) in enumerate(stages) for block in many]


def layers_of(w):
    names = sorted({name.split(".")[0] for name in w if name.startswith("layer")})
    return strides_of([(name, blocks_of(w, name)) for name in names])


def linear_family(w, x, shortcut):
    """akamaster's, kuangliu's and loss-landscape's post-activation nets."""
    x = F.relu(norm(conv(x, w, "conv1"), w, "bn1"))
    for layer, block, stride in layers_of(w):
        place = f"{layer}.{block}"
        if f"{place}.conv3.weight" in w:
            out = F.relu(norm(conv(x, w, f"{place}.conv1"), w, f"{place}.bn1"))
            out = F.relu(norm(conv(out, w, f"{place}.conv2", stride), w, f"{place}.bn2"))
            out = norm(conv(out, w, f"{place}.conv3"), w, f"{place}.bn3")
        else:
            out = F.relu(norm(conv(x, w, f"{place}.conv1", stride), w, f"{place}.bn1"))
            out = norm(conv(out, w, f"{place}.conv2"), w, f"{place}.bn2")
        if shortcut == "none":
            x = F.relu(out)
        elif f"{place}.shortcut.0.weight" in w:
            x = F.relu(out + norm(conv(x, w, f"{place}.shortcut.0", stride), w, f"{place}.shortcut.1"))
        elif shortcut == "A" and stride == 2:
            quarter = out.shape[1] // 4
            x = F.relu(out + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter)))
        else:
            x = F.relu(out + x)
    return linear(x, w, "linear")


def kuangliu_preact(w, x):
    """No norm behind the stem, and none behind the last block."""
    x = conv(x, w, "conv1")
    for layer, block, stride in layers_of(w):
        place = f"{layer}.{block}"
        out = F.relu(norm(x, w, f"{place}.bn1"))
        projected = f"{place}.shortcut.0.weight" in w
        shortcut = conv(out, w, f"{place}.shortcut.0", stride) if projected else x
        if f"{place}.conv3.weight" in w:
            out = conv(out, w, f"{place}.conv1")
            out = conv(F.relu(norm(out, w, f"{place}.bn2")), w, f"{place}.conv2", stride)
            out = conv(F.relu(norm(out, w, f"{place}.bn3")), w, f"{place}.conv3")
        else:
            out = conv(out, w, f"{place}.conv1", stride)
            out = conv(F.relu(norm(out, w, f"{place}.bn2")), w, f"{place}.conv2")
        x = out + shortcut
    return linear(x, w, "linear")


def weiaicunzai(w, x):
    x = F.relu(norm(conv(x, w, "conv1.0"), w, "conv1.1"))
    stages = [(f"conv{number}_x", blocks_of(w, f"conv{number}_x")) for number in (2, 3, 4, 5)]
    for stage, block, stride in strides_of(stages):
        place = f"{stage}.{block}.residual_function"
        bottleneck = f"{place}.6.weight" in w
        out = F.relu(norm(conv(x, w, f"{place}.0", 1 if bottleneck else stride), w, f"{place}.1"))
        out = norm(conv(out, w, f"{place}.3", stride if bottleneck else 1), w, f"{place}.4")
        if bottleneck:
            out = norm(conv(F.relu(out), w, f"{place}.6"), w, f"{place}.7")
        shortcut = f"{stage}.{block}.shortcut"
        if f"{shortcut}.0.weight" in w:
            x = norm(conv(x, w, f"{shortcut}.0", stride), w, f"{shortcut}.1")
        x = F.relu(out + x)
    return linear(x, w, "fc")


def fixup(w, x):
    """Of its two definitions, CIFAR's (zeros behind the channels) and ImageNet's (a pool, and projections)."""
    imagenet = w["conv1.weight"].shape[2] == 7
    x = F.relu(conv(x, w, "conv1", 2 if imagenet else 1) + w["bias1"])
    x = F.max_pool2d(x, 3, 2, 1) if imagenet else x
    for layer, block, stride in layers_of(w):
        place = f"{layer}.{block}"
        last = 3 if f"{place}.conv3.weight" in w else 2
        strided = 2 if last == 3 else 1
        out = x
        for number in range(1, last + 1):
            out = conv(
                out + w[f"{place}.bias{number}a"], w, f"{place}.conv{number}", stride if number == strided else 1
            )
            if number < last:
                out = F.relu(out + w[f"{place}.bias{number}b"])
        out = out * w[f"{place}.scale"] + w[f"{place}.bias{last}b"]
        if f"{place}.downsample.weight" in w:
            x = conv(x + w[f"{place}.bias1a"], w, f"{place}.downsample", stride)
        elif stride == 2:
            x = F.avg_pool2d(x + w[f"{place}.bias1a"], 1, 2)
            x = torch.cat((x, torch.zeros_like(x)), 1)
        x = F.relu(out + x)
    return F.linear(x.mean(dim=(2, 3)) + w["bias2"], w["fc.weight"], w["fc.bias"])


def labml(w, x):
    """The stem has stride 2 whatever its kernel, and no ReLU; of the blocks only the very first has stride 2."""
    x = norm(conv(x, w, "0.conv", 2), w, "0.bn")
    for number in sorted({int(name.split(".")[2]) for name in w if name.startswith("0.blocks.")}):
        place, stride = f"0.blocks.{number}", 2 if number == 0 else 1
        bottleneck = f"{place}.conv3.weight" in w
        out = F.relu(norm(conv(x, w, f"{place}.conv1", 1 if bottleneck else stride), w, f"{place}.bn1"))
        out = norm(conv(out, w, f"{place}.conv2", stride if bottleneck else 1), w, f"{place}.bn2")
        if bottleneck:
            out = norm(conv(F.relu(out), w, f"{place}.conv3"), w, f"{place}.bn3")
        if f"{place}.shortcut.conv.weight" in w:
            x = norm(conv(x, w, f"{place}.shortcut.conv", stride), w, f"{place}.shortcut.bn")
        x = F.relu(out + x)
    return linear(x, w, "1")


def keras_layers(w):
    """Keras's arrays as convolutions (O, I, h, w) and norms."""
    found = {}
    words = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    for name, value in w.items():
        layer, part = name.split("/")
        if part == "kernel":
            found[f"{layer}.weight"] = value.permute(3, 2, 0, 1) if value.dim() == 4 else value.T
        else:
            found[f"{layer}.{words.get(part, part)}"] = value
    return found


def keras_blocks(w):
    """(name, stage, block, last block of the stage)."""
    found = sorted({(int(name[4]), int(name[11])) for name in w if "_block" in name})
    last = dict(found)
    return [(f"conv{stage}_block{block}", stage, block, last[stage]) for stage, block in found]


def keras_v1(w, x):
    """The stride is in the first 1×1 convolution."""
    w = keras_layers(w)

    def normed(x, name, stride=1):
        return norm(conv(x, w, f"{name}_conv", stride), w, f"{name}_bn", KERAS_EPS)

    x = F.relu(norm(conv(x, w, "conv1_conv", 2), w, "conv1_bn", KERAS_EPS))
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)
    for name, stage, block, _ in keras_blocks(w):
        stride = 2 if block == 1 and stage > 2 else 1
        shortcut = normed(x, f"{name}_0", stride) if block == 1 else x
        out = F.relu(normed(x, f"{name}_1", stride))
        out = normed(F.relu(normed(out, f"{name}_2")), f"{name}_3")
        x = F.relu(shortcut + out)
    return linear(x, w, "predictions")


def keras_v2(w, x):
    """The last block of a stage has the stride, and the pool counts the zeros that pad the map."""
    w = keras_layers(w)

    def activated(x, name):
        return F.relu(norm(x, w, name, KERAS_EPS))

    x = F.max_pool2d(F.pad(conv(x, w, "conv1_conv", 2), (1, 1, 1, 1)), 3, 2)
    for name, stage, block, last in keras_blocks(w):
        stride = 2 if block == last and stage < 5 else 1
        preact = activated(x, f"{name}_preact_bn")
        if block == 1:
            shortcut = conv(preact, w, f"{name}_0_conv", stride)
        else:
            shortcut = F.max_pool2d(x, 1, stride) if stride > 1 else x
        out = activated(conv(preact, w, f"{name}_1_conv"), f"{name}_1_bn")
        out = activated(conv(out, w, f"{name}_2_conv", stride), f"{name}_2_bn")
        x = shortcut + conv(out, w, f"{name}_3_conv")
    return linear(activated(x, "post_bn"), w, "predictions")


CASES = [
    ("akamaster", "cifar_resnet14", {**THREE, "pad": "center"}, lambda w, x: linear_family(w, x, "A")),
    ("akamaster", "cifar_resnet14", {**THREE, "shortcut": "B"}, lambda w, x: linear_family(w, x, "B")),
    ("akamaster", "cifar_plain14", THREE, lambda w, x: linear_family(w, x, "none")),
    ("loss-landscape", "cifar_resnet14", {**THREE, "shortcut": "B"}, lambda w, x: linear_family(w, x, "B")),
    ("loss-landscape", "plain18", CIFAR, lambda w, x: linear_family(w, x, "none")),
    ("kuangliu", "resnet18", CIFAR, lambda w, x: linear_family(w, x, "B")),
    ("kuangliu", "resnet50", {**CIFAR, "depths": [1, 2, 1, 1]}, lambda w, x: linear_family(w, x, "B")),
    ("kuangliu", "resnetv2_18", {**CIFAR, "final_norm": False}, kuangliu_preact),
    ("kuangliu", "resnetv2_50", {**CIFAR, "depths": [1, 2, 1, 1], "final_norm": False}, kuangliu_preact),
    ("weiaicunzai", "resnet18", CIFAR, weiaicunzai),
    ("weiaicunzai", "resnet50", {**CIFAR, "depths": [1, 2, 1, 1]}, weiaicunzai),
    ("fixup", "cifar_resnet14", {**THREE, **FIXUP}, fixup),
    ("fixup", "resnet18", {**FOUR, **FIXUP}, fixup),
    ("fixup", "resnet50", {**FOUR, **FIXUP, "depths": [1, 2, 1, 1]}, fixup),
    ("labml", "resnet18", {**LABML, "widths": [4, 8, 16, 32], "strides": [2, 1, 1, 1]}, labml),
    ("labml", "cifar_resnet20", {**LABML, **THREE, "shortcut": "B", "strides": [2, 1, 1]}, labml),
    (
        "labml",
        "cifar_resnet20",
        {
            **LABML,
            "shortcut": "B",
            "strides": [2, 1, 1],
            "branch": "bottleneck",
            "inner_widths": [8, 16, 16],
            "depths": [6, 6, 6],
            "widths": [16, 32, 64],
            "num_classes": 10,
        },
        labml,
    ),
    ("keras", "resnet50", {**KERAS, "stride_in": "1x1"}, keras_v1),
    (
        "keras",
        "resnetv2_50",
        {**KERAS, "stride_at": "last", "stem_pool_zeros": True, "bias_before_norm": False, "depths": [2, 3, 2, 2]},
        keras_v2,
    ),
]
IDS = [f"{dialect} {name} {number}" for number, (dialect, name, *_) in enumerate(CASES)]


def random_weights(w):
    """As after training: at initialisation many are 0 or 1, and hide what is mixed up."""
    draw = torch.Generator().manual_seed(0)
    found = {}
    for name, value in w.items():
        if not value.is_floating_point():
            continue
        kernel = name.endswith(("weight", "kernel")) and value.dim() > 1
        around_one = name.endswith(("running_var", "moving_variance", "gamma", "scale", "weight")) and not kernel
        fan_in = value.shape[:-1].numel() if name.endswith("kernel") else value.shape[1:].numel()
        found[name] = torch.randn(value.shape, generator=draw) * ((2 / fan_in) ** 0.5 if kernel else 0.1)
        if around_one:
            found[name] = torch.rand(value.shape, generator=draw) + 0.5
    return found


def images(n=3):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def difference(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize(("dialect", "name", "settings", "forward"), CASES, ids=IDS)
@torch.no_grad()
def test_their_weights_compute_here_what_they_do_there(dialect, name, settings, forward):
    net = create_model(name, **settings).double().eval()
    theirs = {key: value.double() for key, value in random_weights(export_weights(net, dialect)).items()}
    report = load_weights(net, theirs)
    assert dialect in SAME_NAMES.get(report.dialect, (report.dialect,))
    assert report.skipped == ()
    assert all(own.endswith("num_batches_tracked") for own in report.missing)
    assert difference(net(images().double()), forward(theirs, images().double())) <= 1e-10
    again = export_weights(net, dialect)
    assert all(torch.equal(again[key], value) for key, value in theirs.items())


@pytest.mark.parametrize(("dialect", "name", "settings", "forward"), CASES, ids=IDS)
@torch.no_grad()
def test_our_weights_compute_there_what_they_do_here(dialect, name, settings, forward):
    net = create_model(name, seed=3, **settings)
    net.train()(images(8))  # statistics of its norms that are not 0 and 1
    net.eval()
    assert difference(forward(export_weights(net, dialect), images()), net(images())) <= 1e-5


@pytest.mark.parametrize(("dialect", "name", "settings", "forward"), CASES, ids=IDS)
@torch.no_grad()
def test_control_two_convolutions_exchanged_show(dialect, name, settings, forward):
    net = create_model(name, **settings).eval()
    theirs = random_weights(export_weights(net, dialect))
    load_weights(net, theirs)
    shapes = {}
    for key, value in theirs.items():
        if value.dim() == 4 and value.shape in shapes:
            other = shapes[value.shape]
            theirs[key], theirs[other] = theirs[other], theirs[key]
            break
        shapes[value.shape] = key
    assert difference(net(images()), forward(theirs, images())) > 1e-3


def test_every_dialect_has_a_forward_here_or_is_compared_with_the_project_itself():
    assert {dialect for dialect, *_ in CASES} | {"resnetlab", "torchvision", "timm"} == set(DIALECTS)
