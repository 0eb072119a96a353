import copy
from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.data.loader import Loader
from resnetlab.diagnostics.cam import cell_cam, chosen_samples, explain, grad_cam, raw_cam
from resnetlab.models.classifier import Classifier
from resnetlab.models.resnet import ResNetConfig
from resnetlab.models.vgg import VGGConfig
from resnetlab.models.zoo import create_model
from tests.conftest import make_data
from tests.diagnostics.nets import context, diagnosed, measured
from tests.made import cam_result, diagnosis

CONV = ["cifar_resnet8", "cifar_plain8", "cifar_preact_resnet8"]


class Linear(Classifier):
    """Maps A_k = v_k x of an image, and logits y_c = Σ_k w_ck mean(A_k)."""

    def __init__(self, v: torch.Tensor, w: torch.Tensor) -> None:
        super().__init__()
        self.config = ResNetConfig(depths=(1,), widths=(1,), num_classes=len(w))
        self.stem = nn.Conv2d(1, len(v), kernel_size=1, bias=False)
        self.stages = nn.Sequential(nn.Identity())
        self.head = nn.Linear(len(v), len(w), bias=False)
        with torch.no_grad():
            self.stem.weight.copy_(v.view(-1, 1, 1, 1))
            self.head.weight.copy_(w)


def test_map_of_a_linear_net_equals_the_hand_solved_one():
    """Σ_k α_k A_k = (Σ_k w_ck v_k) x / (H W): the image's own bright side or its dark one, to 1e-10."""
    v, w = torch.tensor([2.0, -1.0]), torch.tensor([[1.0, 0.5], [-1.0, 1.0], [1.0, 2.0]])
    net = Linear(v, w).double()
    x = torch.randn(3, 1, 4, 5, dtype=torch.float64)
    heat = grad_cam(net, x, classes=[0, 1, 2])
    bright, dark = x[0, 0].clamp(min=0), (-x[1, 0]).clamp(min=0)
    torch.testing.assert_close(heat[0], bright / bright.max(), rtol=0, atol=1e-10)  # 2 - 0.5 > 0
    torch.testing.assert_close(heat[1], dark / dark.max(), rtol=0, atol=1e-10)  # -2 - 1 < 0
    assert torch.equal(heat[2], torch.zeros(4, 5, dtype=torch.float64))  # 2 - 2 = 0: nothing speaks for it


def test_raw_map_has_the_mean_gradient_as_weight():
    """α = (1 + 3)/2 and (-2 + 0)/2; α_1 A_1 + α_2 A_2 = 2 · (5, 1) - (4, 3), and below zero is cut."""
    maps = torch.tensor([[[[5.0, 1.0]], [[4.0, 3.0]]]], dtype=torch.float64)
    gradient = torch.tensor([[[[1.0, 3.0]], [[-2.0, 0.0]]]], dtype=torch.float64)
    assert raw_cam(maps, gradient).tolist() == [[[6.0, 0.0]]]


def made(name: str, **choices: object) -> Classifier:
    """A net in float64 with statistics of its own, as after training."""
    net = create_model(name, num_classes=4, image_size=32, **choices).double().train()
    net(torch.randn(8, 3, 32, 32, dtype=torch.float64))
    return net


def by_hooks(net: Classifier, images: torch.Tensor, classes: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """Eq. 1 and 2 as they are written, one image at a time, from the layer's output and its gradient."""
    net, kept = net.eval(), {}
    handles = [
        layer.register_forward_hook(lambda _, __, out: kept.update(maps=out.detach())),
        layer.register_full_backward_hook(lambda _, __, gradient: kept.update(gradient=gradient[0])),
    ]
    heats = []
    for image, label in zip(images, classes, strict=True):
        net(image[None].requires_grad_())[0, label].backward()
        maps, gradient = kept["maps"][0], kept["gradient"][0]
        heat = torch.zeros_like(maps[0])
        for k in range(len(maps)):
            heat += gradient[k].sum() / gradient[k].numel() * maps[k]
        heat = heat.clamp(min=0)
        large = F.interpolate(heat[None, None], size=image.shape[1:], mode="bilinear", align_corners=False)[0, 0]
        heats.append(large / large.max())
    for handle in handles:
        handle.remove()
    return torch.stack(heats)


@pytest.mark.parametrize("layer", ["stages.2", "stages.1.0", "stem"])
@pytest.mark.parametrize("name", CONV)
def test_maps_of_every_layer_equal_the_formula_with_hooks(name, layer):
    net = made(name)
    x, classes = torch.randn(3, 3, 32, 32, dtype=torch.float64), torch.tensor([3, 0, 1])
    twin = copy.deepcopy(net)
    expected = by_hooks(twin, x, classes, twin.get_submodule(layer))
    torch.testing.assert_close(grad_cam(net, x, classes, layer), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "choices"),
    [*((name, {}) for name in CONV), ("resnet18", {"stem": "cifar"}), ("cifar_resnet8", {"se_reduction": 4})],
)
def test_last_maps_of_a_pooled_net_equal_class_activation_maps(name, choices):
    """With a mean and a matrix behind the maps α_k is w_ck / (H W): Zhou et al. 2016, arXiv:1512.04150, eq. 2."""
    net = made(name, **choices)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        net.eval()
        maps, classes = net.forward_intermediates(x)["features"], net(x).argmax(dim=1)
        cams = torch.einsum("nk,nkhw->nhw", net.head.weight[classes], maps).clamp(min=0)
    large = F.interpolate(cams[:, None], size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
    expected = large / large.amax(dim=(1, 2), keepdim=True)
    found = grad_cam(net, x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert found.amax(dim=(1, 2)).tolist() == [1, 1]
    assert found.min() >= 0


def test_vgg_has_maps_too():
    net = VGGConfig(depths=(1,) * 5, num_classes=3, image_size=32).make()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(grad_cam(net, x, [0, 1]), grad_cam(net, x, [0, 1], layer="stages"))


@pytest.mark.parametrize("layer", [None, "stages.1"])
def test_explaining_changes_nothing(layer):
    net = create_model("cifar_resnet8").train()
    net.head.eval()
    net.stem.requires_grad_(False)
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        first = grad_cam(net, x, layer=layer)
    assert torch.equal(first, grad_cam(net, x, layer=layer))
    assert not first.requires_grad
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_image_that_overflows_has_no_map_and_the_others_have():
    net = create_model("cifar_resnet8")
    x = torch.randn(2, 3, 8, 8)
    alone = grad_cam(net, x[1:])
    x[0] = float("nan")
    heat = grad_cam(net, x)
    assert heat[0].isnan().all()
    torch.testing.assert_close(heat[1:], alone)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"layer": "stages.9"}, "stages"),
        ({"layer": "head"}, r"head .*\(2, 10\), no maps"),
        ({"classes": [0, 10]}, "0 to 9"),
        ({"classes": [-1, 0]}, "0 to 9"),
        ({"classes": [0]}, "each of 2 images"),
    ],
)
def test_settings_that_explain_nothing_are_refused(settings, named):
    net = create_model("cifar_resnet8")
    with pytest.raises(ConfigError, match=named):
        grad_cam(net, torch.randn(2, 3, 8, 8), **settings)
    assert not any(module._forward_hooks for module in net.modules())


def test_nets_without_maps_or_classes_are_refused():
    with pytest.raises(ConfigError, match="no maps"):
        grad_cam(create_model("mlp_resnet9"), torch.randn(2, 1, 8, 8))
    with pytest.raises(ConfigError, match="num_classes"):
        grad_cam(create_model("cifar_resnet8", num_classes=0), torch.randn(2, 3, 8, 8))


def test_cells_enlarged_are_the_usual_map(data):
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3)
    x = torch.randn(5, 1, 16, 16)
    heat, logits = cell_cam(net, x)
    assert heat.shape == (5, 4, 4)
    assert torch.equal(logits, net.eval()(x).detach())
    large = F.interpolate(heat[:, None], size=(16, 16), mode="bilinear")[:, 0]
    torch.testing.assert_close(large / large.amax((1, 2), keepdim=True).clamp(min=1e-9), grad_cam(net, x))


def test_many_cells_are_averaged_to_fewer(data):
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3)
    x = torch.randn(2, 1, 16, 16)
    whole, _ = cell_cam(net, x, "stages.0")
    small, _ = cell_cam(net, x, "stages.0", most=4)
    means = whole.reshape(2, 4, 4, 4, 4).mean((2, 4))
    torch.testing.assert_close(small, means / means.amax((1, 2), keepdim=True))


def test_first_image_of_each_class_is_taken_where_none_is_named():
    def chosen(labels: torch.Tensor):
        data = make_data(test=30)
        data = replace(data, test=replace(data.test, labels=labels))
        return chosen_samples(data, context(diagnosed(data)))

    assert chosen(torch.arange(30) % 3) == [0, 1, 2]
    assert chosen(torch.tensor([2] * 10 + [0] * 20)) == [10, 0]
    assert chosen(torch.arange(30)) == list(range(8))


def test_named_images_are_taken_in_order_and_once(data):
    net = diagnosed(data)
    assert chosen_samples(data, context(net, cam_images=(5, 0, 5))) == [5, 0]
    with pytest.raises(ConfigError, match="cam_images=40 is not possible: it must be from 0 to 39"):
        chosen_samples(data, context(net, cam_images=(0, 40)))


def test_cams_hold_image_answer_and_map_of_their_sample(data):
    one = diagnosed(data)
    found = measured(one, "cam", cam_images=(7, 2)).cams
    images, labels = next(Loader(data.test, data.normalisation, 40).in_order())
    logits = one.net.eval()(images).detach()
    for cam in found:
        assert (cam.true, cam.predicted) == (f"row {labels[cam.sample]}", f"row {logits[cam.sample].argmax()}")
        assert cam.probability == pytest.approx(logits[cam.sample].softmax(0).max().item(), rel=1e-5)
        heat, _ = cell_cam(one.net, images[cam.sample : cam.sample + 1])
        np.testing.assert_allclose(cam.heat, heat[0], atol=1e-5)
        shown = np.asarray(Image.open(BytesIO(b64decode(cam.image))))
        assert np.array_equal(shown, data.test.images[cam.sample, 0])
    assert [(cam.sample, cam.name) for cam in found] == [(7, None), (2, None)]


def test_answer_that_is_no_number_has_neither_class_nor_heat(data):
    one = diagnosed(data)
    with torch.no_grad():
        one.net.head.weight.fill_(float("nan"))
    (cam,) = measured(one, "cam", cam_images=(0,)).cams
    assert (cam.predicted, cam.probability, cam.warm, cam.right) == (None, None, None, False)
    assert all(heat is None for row in cam.heat for heat in row)


def test_names_of_files_come_along(data):
    named = replace(data, test=replace(data.test, names=[f"row/{n}.png" for n in range(40)]))
    (cam,) = measured(diagnosed(named), "cam", cam_images=(7,)).cams
    assert (cam.sample, cam.name, cam.label) == (7, "row/7.png", "7 (row/7.png)")


def test_file_of_the_user_s_is_explained_as_the_same_image_of_the_data_would_be(data, tmp_path):
    """Grey levels go through a file to the bit, and a file has no true class."""
    one = diagnosed(data)
    Image.fromarray(data.test.images[7, 0].numpy()).save(tmp_path / "mine.png")
    (known,) = measured(one, "cam", cam_images=(7,)).cams
    (mine,) = measured(one, "cam", image=(tmp_path / "mine.png",)).cams
    assert (mine.sample, mine.name, mine.true, mine.right) == (None, "mine.png", None, None)
    assert (mine.predicted, mine.probability, mine.heat) == (known.predicted, known.probability, known.heat)
    both = measured(one, "cam", cam_images=(7,), image=(tmp_path / "mine.png",)).cams
    assert [cam.label for cam in both] == ["7", "mine.png"]
    told = explain(replace(diagnosis(), net=replace(diagnosis().net, cams=both), plain=None))
    assert "of 1 test images are predicted correctly (image 7)" in told.sentences[0]
    assert f"image mine.png is predicted as {mine.predicted}" in told.sentences[1]
    with pytest.raises(DataError, match="cannot be read"):
        context_and_reason(one, image=(tmp_path / "none.png",))


def context_and_reason(net, **settings):
    from resnetlab.diagnostics.cam import applies

    return applies(net, context(net, "cam", **settings))


def test_file_is_brought_to_the_range_of_digits(tmp_path):
    """White is 16 there, so that 255 becomes 17 - the next whole step - at most, and 128 becomes 8."""
    from resnetlab.diagnostics.cam import own_image

    data = make_data()
    dark = replace(data, train=replace(data.train, images=data.train.images // 16))
    brightest = int(dark.train.images.max())
    Image.fromarray(np.full((8, 8, 3), 128, np.uint8)).save(tmp_path / "grey.png")
    assert own_image(tmp_path / "grey.png", dark).unique().tolist() == [128 // (255 // brightest)]
    assert own_image(tmp_path / "grey.png", data).unique().tolist() == [128]


def looked_at(*cams):
    """A diagnosis with those images, without a counterpart."""
    made = diagnosis()
    return replace(made, net=replace(made.net, cams=list(cams)), plain=None)


@pytest.mark.parametrize(
    ("warm", "verdict"), [((4, 4), "focused"), ((5, 5), "between"), ((8, 9), "spread"), ((0, 4), "blank")]
)
def test_answers_are_judged_by_how_much_of_the_map_is_warm(warm, verdict):
    found = explain(looked_at(*(cam_result(n, warm=cells) for n, cells in enumerate(warm))))
    assert found.verdict == verdict
    assert "2 of 2 test images are predicted correctly (images 0, 1); the maps have 4 × 4 cells" in found.sentences[0]
    assert any("no heat, or no finite heat, in image 0" in line for line in found.sentences) is (verdict == "blank")


def test_few_cells_are_coarse_and_no_number_is_broken():
    assert explain(looked_at(replace(cam_result(), heat=[[1.0, 0.0]] * 2))).verdict == "coarse"
    found = explain(looked_at(cam_result(), cam_result(predicted=None)))
    assert found.verdict == "broken"
    assert "1 of 2 test images are predicted correctly" in found.sentences[0]


def test_wrong_answers_are_named_to_be_looked_at():
    right, wrong = cam_result(4), cam_result(9, predicted="b")
    assert explain(looked_at(right)).advice == []
    (advice,) = explain(looked_at(right, wrong)).advice
    assert advice.startswith("Wrong predictions: image 9.")
