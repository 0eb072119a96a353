"""Grad-CAM of ours and captum's, of the same networks, images, classes and layers."""

import pytest
import torch

from resnetlab.diagnostics.cam import grad_cam
from resnetlab.models.zoo import create_model

NETS = [
    ("cifar_resnet8", {}),
    ("cifar_plain8", {}),
    ("cifar_preact_resnet11", {}),
    ("resnet18", {"stem": "cifar"}),
    ("cifar_resnet8", {"norm": "group", "se_reduction": 4}),
]
CLASSES = torch.tensor([3, 0, 1])


def made(name, choices):
    """A net in float64 with statistics of its own, as after training, in eval mode; and images."""
    net = create_model(name, num_classes=4, image_size=32, **choices).double().train()
    net(torch.randn(8, 3, 32, 32, dtype=torch.float64))
    return net.eval(), torch.randn(3, 3, 32, 32, dtype=torch.float64)


def by_captum(captum, net, x, layer):
    """captum's maps, enlarged by its own means, over the largest value of each."""
    gradcam = captum.LayerGradCam(net, net.get_submodule(layer))
    maps = gradcam.attribute(x, target=CLASSES, relu_attributions=True)
    maps = captum.LayerAttribution.interpolate(maps, x.shape[2:], "bilinear")[:, 0].detach()
    assert maps.amax(dim=(1, 2)).min() > 0, "a map of zeros tells nothing of the others"
    return maps / maps.amax(dim=(1, 2), keepdim=True)


@pytest.mark.parametrize("layer", ["stages.2", "stages.1.0", "stem"])
@pytest.mark.parametrize(("name", "choices"), NETS, ids=[f"{name} {choices}" for name, choices in NETS])
def test_maps_of_every_layer_equal_captums(captum, record_property, name, choices, layer):
    net, x = made(name, choices)
    difference = (grad_cam(net, x, CLASSES, layer) - by_captum(captum, net, x, layer)).abs().max().item()
    record_property("difference", f"{difference:.1e}")
    assert difference <= 1e-10


def test_default_layer_is_the_last_stage_as_captum_sees_it(captum):
    net, x = made("cifar_resnet8", {})
    torch.testing.assert_close(grad_cam(net, x, CLASSES), by_captum(captum, net, x, "stages.2"), rtol=0, atol=1e-10)


def test_control_another_class_shows(captum):
    net, x = made("cifar_resnet8", {})
    assert (grad_cam(net, x, [0, 1, 2]) - by_captum(captum, net, x, "stages.2")).abs().max() > 1e-2
