from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError
from resnetlab.data.loader import Loader
from resnetlab.diagnostics.cam import cell_cam, grad_cam
from resnetlab.diagnostics.load import INITIAL, Subject
from resnetlab.diagnostics.soundings import first_images, unwatched
from resnetlab.diagnostics.surveying import chosen_images, read_cams, read_landscape, read_paths
from resnetlab.models.zoo import create_model
from resnetlab.train.recipe import Recipe
from tests.conftest import make_data

CPU = torch.device("cpu")


def subject(data, name: str = "cifar_resnet8", **choices) -> Subject:
    net = create_model(name, in_chans=1, num_classes=3, image_size=8, **choices)
    return Subject(net=net, data=data, recipe=Recipe(), state=INITIAL, run=False, trained=True, notes=[])


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
    data = make_data(test=30)
    assert chosen_images(data, ()) == [0, 1, 2]
    labels = torch.tensor([2] * 10 + [0] * 20)
    sorted_ = replace(data, test=replace(data.test, labels=labels))
    assert chosen_images(sorted_, ()) == [10, 0]
    many = replace(data, test=replace(data.test, labels=torch.arange(30)))
    assert chosen_images(many, ()) == list(range(8))


def test_named_images_are_taken_in_order_and_once(data):
    assert chosen_images(data, (5, 0, 5)) == [5, 0]
    with pytest.raises(ConfigError, match="cam_images=40 is not possible: it must be from 0 to 39"):
        chosen_images(data, (0, 40))


def test_cams_hold_image_answer_and_map_of_their_sample(data):
    one = subject(data)
    found = read_cams(one, [7, 2], None)
    images, labels = next(Loader(data.test, data.normalisation, 40).in_order())
    logits = one.net.eval()(images).detach()
    for cam in found:
        assert (cam.true, cam.predicted) == (f"row {labels[cam.sample]}", f"row {logits[cam.sample].argmax()}")
        assert cam.probability == pytest.approx(logits[cam.sample].softmax(0).max().item(), rel=1e-5)
        heat, _ = cell_cam(one.net, images[cam.sample : cam.sample + 1])
        np.testing.assert_allclose(cam.heat, heat[0], atol=1e-5)
        shown = np.asarray(Image.open(BytesIO(b64decode(cam.image))))
        assert np.array_equal(shown, data.test.images[cam.sample, 0])
    assert [cam.sample for cam in found] == [7, 2]


def test_answer_that_is_no_number_has_neither_class_nor_heat(data):
    one = subject(data)
    with torch.no_grad():
        one.net.head.weight.fill_(float("nan"))
    (cam,) = read_cams(one, [0], None)
    assert (cam.predicted, cam.probability, cam.warm, cam.right) == (None, None, None, False)
    assert all(heat is None for row in cam.heat for heat in row)


def test_surface_of_net_and_twin_is_read_on_the_same_images_that_the_seed_chooses(data):
    seen = []

    def read(name: str, seed: int = 0):
        one = subject(data, name)
        handle = one.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        found = read_landscape(one, side=3, reach=0.5, images=10, seed=seed, progress=unwatched)
        handle.remove()
        return found, seen[-1]

    (net, first), (twin, second), (_, other) = read("cifar_resnet8"), read("cifar_plain8"), read("cifar_resnet8", 1)
    assert (net.n, net.side, net.axis) == (10, 3, [-0.5, 0.0, 0.5])
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert net.losses != twin.losses


def test_plain_net_has_no_paths_and_a_deep_one_is_read_on_fewer_images(data, monkeypatch):
    batch = first_images(data, 8, 0, CPU)

    def read(name: str):
        return read_paths(subject(data, name), *batch, draws=1, seed=0, progress=unwatched)

    assert read("cifar_plain8") is None
    assert read("cifar_resnet8").n == 8
    monkeypatch.setattr("resnetlab.diagnostics.surveying.DEEP", 2)
    assert read("cifar_resnet14").n == 2
    assert read("cifar_resnet8").n == 5
