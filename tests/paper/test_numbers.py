"""Golden numbers: the counts of the papers' networks, and what signal and gradient do at initialisation.

Parameters and multiply-adds were counted from the layer shapes and agree with what torchvision documents for the same
models; multiply-adds are those of convolutions and matrices.
"""

import pytest
import torch

from resnetlab.data.loader import Loader
from resnetlab.data.sources import read_digits
from resnetlab.models.init import build
from resnetlab.models.summary import count_multiply_adds, saved_bytes, summarise
from resnetlab.models.zoo import create_model, model_config
from resnetlab.records.gradients import judge
from resnetlab.train.gradients import block_gradients

IMAGENET = [
    # name, settings, parameters, multiply-adds in 10⁹
    ("plain18", {}, 11_515_688, "1.7948"),
    ("resnet18", {"shortcut": "A"}, 11_515_688, "1.7948"),
    ("resnet18", {}, 11_689_512, "1.8141"),
    ("resnet18", {"shortcut": "C"}, 12_043_816, "1.8783"),
    ("plain34", {}, 21_623_848, "3.6445"),
    ("resnet34", {"shortcut": "A"}, 21_623_848, "3.6445"),
    ("resnet34", {}, 21_797_672, "3.6638"),
    ("resnet34", {"shortcut": "C"}, 22_716_840, "3.8307"),
    ("resnet50", {}, 25_557_032, "4.0892"),
    ("resnet50", {"stride_in": "1x1"}, 25_557_032, "3.858"),
    ("resnet101", {}, 44_549_160, "7.8014"),
    ("resnet101", {"stride_in": "1x1"}, 44_549_160, "7.570"),
    ("resnet152", {}, 60_192_808, "11.5136"),
    ("resnet152", {"stride_in": "1x1"}, 60_192_808, "11.282"),
    ("vgg11", {}, 132_863_336, "7.6091"),
    ("vgg13", {}, 133_047_848, "11.3085"),
    ("vgg16", {}, 138_357_544, "15.4703"),
    ("vgg19", {}, 143_667_240, "19.6321"),
    ("vgg11_bn", {}, 132_868_840, "7.6091"),
    ("vgg13_bn", {}, 133_053_736, "11.3085"),
    ("vgg16_bn", {}, 138_365_992, "15.4703"),
    ("vgg19_bn", {}, 143_678_248, "19.6321"),
]

FAMILIES = [
    ("resnext50_32x4d", {}, 25_028_904, "4.2305"),
    ("resnext101_32x8d", {}, 88_791_336, "16.414"),
    ("resnext101_64x4d", {}, 83_455_272, "15.4603"),
    ("wide_resnet50_2", {}, 68_883_240, "11.398"),
    ("wide_resnet101_2", {}, 126_886_696, "22.7531"),
    ("resnetv2_18", {}, 11_687_720, "1.8141"),
    ("resnetv2_34", {}, 21_795_880, "3.6638"),
    ("resnetv2_50", {}, 25_549_352, "4.0892"),
    ("resnetv2_101", {}, 44_541_480, "7.8014"),
    ("resnetv2_152", {}, 60_185_128, "11.5136"),
    ("resnet18d", {}, 11_708_744, "2.054"),
    ("resnet50d", {}, 25_576_264, "4.329"),
    ("resnet101d", {}, 44_568_392, "8.041"),
    ("resnet152d", {}, 60_212_040, "11.753"),
    ("resnet200d", {}, 64_693_064, "15.247"),
    ("seresnet50", {}, 28_088_024, "4.092"),
    ("seresnext50_32x4d", {}, 27_559_896, "4.233"),
    ("cifar_preact_resnet164", {}, 1_703_258, "0.2445"),
    ("cifar_preact_resnet1001", {}, 10_327_706, "1.4878"),
    ("wide_resnet16_4", {}, 2_748_890, None),
    ("wide_resnet16_8", {}, 10_961_370, None),
    ("wide_resnet28_10", {}, 36_479_194, "5.243"),
    ("wide_resnet40_4", {}, 8_949_210, None),
]

SMALL_STEM = {"stem": "cifar", "num_classes": 10, "image_size": 32}
SMALL = [
    ("resnet18", SMALL_STEM, 11_173_962, "0.5554"),
    ("resnet34", SMALL_STEM, 21_282_122, "1.1594"),
    ("resnet50", SMALL_STEM, 23_520_842, "1.2978"),
]

CIFAR = [
    # depth, parameters of plain and A, B, C, multiply-adds of A in 10⁶
    (20, 269_722, 272_474, 283_962, "40.551"),
    (32, 464_154, 466_906, 489_594, "68.863"),
    (44, 658_586, 661_338, 695_226, "97.174"),
    (56, 853_018, 855_770, 900_858, "125.486"),
    (110, 1_727_962, 1_730_714, 1_826_202, "252.888"),
    (1202, 19_421_274, 19_424_026, 20_538_714, "2829.239"),
]


def as_printed(value: int, unit: float, figure: str) -> str:
    return f"{value / unit:.{len(figure.partition('.')[2])}f}"


@pytest.mark.parametrize(("name", "settings", "parameters", "multiply_adds"), IMAGENET + SMALL + FAMILIES)
def test_network_has_its_golden_counts(name, settings, parameters, multiply_adds):
    config = model_config(name, **settings)
    net = build(config, seed=0, device="meta")
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    if multiply_adds:
        found = count_multiply_adds(net, (config.in_chans, config.image_size, config.image_size))
        assert as_printed(found, 1e9, multiply_adds) == multiply_adds


@pytest.mark.long
def test_saved_activations_of_preactivation_1001_are_the_measured_ones():
    config = model_config("cifar_preact_resnet1001")
    net = build(config, seed=0, device="meta")
    each = saved_bytes(net, (3, 32, 32), batch=3) - saved_bytes(net, (3, 32, 32), batch=2)
    assert each / 2**20 == pytest.approx(146.4, rel=0.01)


@pytest.mark.parametrize(("depth", "a", "b", "c", "multiply_adds"), CIFAR)
def test_cifar_family_has_its_golden_counts(depth, a, b, c, multiply_adds):
    for option, expected in ((None, a), ("A", a), ("B", b), ("C", c)):
        net = create_model(f"cifar_resnet{depth}", shortcut=option, device="meta")
        assert sum(parameter.numel() for parameter in net.parameters()) == expected
        if option in (None, "A"):
            found = count_multiply_adds(net, (3, 32, 32))
            assert as_printed(found, 1e6, multiply_adds) == multiply_adds


def test_cifar_128_and_100_classes_have_their_golden_counts():
    summary = summarise(model_config("cifar_resnet128"))
    assert summary.parameters == 2_019_610
    assert as_printed(summary.multiply_adds, 1e6, "295.355") == "295.355"
    assert summarise(model_config("cifar_resnet20", num_classes=100)).parameters == 269_722 + 5_850


@pytest.mark.parametrize(("depth", "mebibytes"), [(20, 1.45), (56, 4.09), (110, 8.04), (128, 9.36)])
def test_saved_activations_of_a_step_are_the_measured_ones(depth, mebibytes):
    assert summarise(model_config(f"cifar_resnet{depth}")).saved_bytes / 2**20 == pytest.approx(mebibytes, rel=0.005)


def test_figure_3_plain_and_residual_34_cost_eighteen_percent_of_vgg_19():
    vgg, plain = (summarise(model_config(name)).multiply_adds for name in ("vgg19", "plain34"))
    assert plain / vgg == pytest.approx(0.18, abs=0.01)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("cifar_plain20", 1.0, 2.5),
        ("cifar_plain56", 3.0, 5.0),
        ("cifar_plain110", 6.0, 9.0),
        ("cifar_resnet20", 0.0, 1.5),
        ("cifar_resnet56", 0.0, 2.0),
        ("cifar_resnet110", 0.0, 2.2),
    ],
)
def test_relative_gradient_at_initialisation_has_the_measured_order(name, least, most):
    """Measured, first over last convolution: plain-20 1.8 orders, 56 4.0, 110 7.8; ResNet-20 1.3, 56 1.7, 110 2.1."""
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    growth = judge(block_gradients(create_model(name), images, torch.arange(32) % 10)).growth
    assert growth is not None
    assert least < growth < most


@pytest.mark.parametrize(("name", "least", "most"), [("cifar_plain110", 6.0, 7.5), ("cifar_resnet110", 0.0, 2.0)])
def test_relative_gradient_on_the_digits_has_that_order_with_every_seed(name, least, most):
    """The same on images: plain-110 explodes by six to seven and a half orders, ResNet-110 stays within two."""
    data = read_digits(0)
    batch = next(Loader(data.train, data.normalisation, 64).shuffled(0, epoch=1))
    for seed in range(3):
        growth = judge(block_gradients(create_model(name, in_chans=1, seed=seed), *batch)).growth
        assert growth is not None
        assert least < growth < most
