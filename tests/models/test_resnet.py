import pytest
import torch
from torch.testing import assert_close

from resnetlab.core.errors import ConfigError
from resnetlab.models.resnet import ResNet, ResNetConfig
from resnetlab.models.summary import summarise
from resnetlab.models.zoo import create_model, model_config


@pytest.mark.parametrize("name", ["resnet18", "plain34", "resnet50"])
def test_imagenet_stages_halve_the_map_once_each(name):
    sides = [stage.output[-1] for stage in summarise(model_config(name)).stages if stage.name.startswith("st")]
    assert sides == [56, 56, 28, 14, 7]


@pytest.mark.parametrize("shortcut", ["A", "B", "C", None])
def test_cifar_stages_halve_the_map_once_each(shortcut):
    stages = summarise(model_config("cifar_resnet20", shortcut=shortcut)).stages
    assert [stage.output for stage in stages if stage.name != "final"] == [
        (16, 32, 32),
        (16, 32, 32),
        (32, 16, 16),
        (64, 8, 8),
        (10,),
    ]


def test_cifar_forward_equals_the_network_written_out():
    """Every layer of cifar_resnet8 in functional form, from the paper's text."""
    from torch.nn import functional as F

    net = create_model("cifar_resnet8", seed=2).eval()
    weights = net.state_dict()
    x = torch.randn(2, 3, 16, 16)

    def conv_norm(x, conv, norm, stride=1):
        x = F.conv2d(x, weights[f"{conv}.weight"], stride=stride, padding=1)
        return x / (1 + 1e-5) ** 0.5 * weights[f"{norm}.weight"][:, None, None] + weights[f"{norm}.bias"][:, None, None]

    a = F.relu(conv_norm(x, "stem.conv", "stem.norm"))
    for stage, stride in ((0, 1), (1, 2), (2, 2)):
        branch = f"stages.{stage}.0.branch"
        out = F.relu(conv_norm(a, f"{branch}.conv1", f"{branch}.norm1", stride))
        out = conv_norm(out, f"{branch}.conv2", f"{branch}.norm2")
        if stride == 2:
            a = torch.cat([a[:, :, ::2, ::2], torch.zeros_like(a[:, :, ::2, ::2])], dim=1)
        a = F.relu(out + a)
    expected = a.mean(dim=(2, 3)) @ weights["head.weight"].T + weights["head.bias"]
    assert_close(net(x), expected)


@pytest.mark.parametrize("side", [8, 13, 32])
def test_any_image_size_goes_through(side):
    assert create_model("cifar_resnet8", in_chans=1)(torch.randn(2, 1, side, side)).shape == (2, 10)


def test_1202_layers_do_a_forward_and_backward_step():
    net = create_model("cifar_resnet1202")
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    gradients = [parameter.grad for parameter in net.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"depths": (2, 2)}, "depths"),
        ({"depths": (2, 0, 2, 2)}, "at least one block"),
        ({"widths": (64, 0, 64, 64)}, "at least one channel"),
        ({"branch": "botleneck"}, "did you mean 'bottleneck'"),
        ({"stem": "cifer"}, "did you mean 'cifar'"),
        ({"shortcut": "E"}, "shortcut"),
        ({"pad": "front"}, "pad"),
        ({"num_classes": -1}, "num_classes=-1"),
        ({"strides": (1, 2)}, "strides"),
        ({"stride_in": "1x1"}, "stride_in"),
        ({"strides": (1, 2, 0, 2)}, "strides"),
        ({"stem_width": 0}, "stem_width"),
        ({"stem": "deep", "stem_width": 33}, "even for a deep stem"),
        ({"stochastic_depth": 1.0}, "stochastic_depth"),
        ({"order": "middle"}, "order"),
        ({"norm": "bach"}, "did you mean 'batch'"),
        ({"activation": "rele"}, "did you mean 'relu'"),
        ({"groups": 32}, "bottleneck where groups"),
        ({"groups": 0, "branch": "bottleneck"}, "groups"),
        ({"dropout": 1.5}, "dropout"),
        ({"scaling": "fixup"}, "none, or rezero, where there is a norm"),
        ({"scaling": "fixup", "norm": "none", "zero_init_residual": True}, "decides how a branch starts"),
        ({"in_chans": 0}, "in_chans=0"),
        ({"image_size": 0}, "image_size=0"),
        ({"zero_init_residual": True, "scale_residual": True}, "exclude each other"),
        ({"zero_init_residual": True, "shortcut": None}, "need a shortcut"),
    ],
)
def test_impossible_config_is_refused_with_its_setting(overrides, message):
    with pytest.raises(ConfigError, match=message):
        ResNetConfig(**({"depths": (2, 2, 2, 2), "widths": (64, 128, 256, 512)} | overrides))


def test_narrowing_stage_under_option_a_is_refused():
    config = ResNetConfig(depths=(1, 1), widths=(32, 16), shortcut="A", stem="cifar")
    with pytest.raises(ConfigError, match="narrow"):
        ResNet(config)
