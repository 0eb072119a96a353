"""The same weights in our network and in torchvision's or timm's: the same logits and the same gradients."""

import pytest
import torch

from resnetlab.core.errors import CheckpointError
from resnetlab.models.features import FeatureMaps
from resnetlab.models.key_mapping import their_names
from resnetlab.models.lookalikes import UNKNOWN
from resnetlab.models.pretrained import PRETRAINED
from resnetlab.models.weights import export_weights, load_weights
from resnetlab.models.zoo import ROWS, create_model

SIDE = 64
LIGHT = 100_000_000
"""Parameters up to which a network that is not in the lists below is compared too."""
TORCHVISION = ["resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "vgg11", "vgg11_bn"]
TIMM = [
    *["resnet18", "resnet50", "resnet18d", "resnet50d", "resnetv2_18", "resnetv2_50", "seresnet50"],
    *["seresnext50_32x4d", "wide_resnet50_2", "resnext50_32x4d", "vgg11_bn", "resnet50c", "resnet50s", "resnet50_gn"],
    *["resnetv2_18d", "resnetv2_50d", "resnetv2_50d_gn", "seresnet18", "seresnext26d_32x4d", "resnext50d_32x4d"],
]
CASES = [("torchvision", name) for name in TORCHVISION] + [("timm", name) for name in TIMM]


def make_theirs(request, project, name):
    module = request.getfixturevalue(project)
    make = module.models.get_model if project == "torchvision" else module.create_model
    torch.manual_seed(0)
    theirs = make(name, num_classes=10)
    with torch.no_grad():
        # Statistics and scales as after training: at initialisation many are 0 or 1, and hide what is mixed up.
        for key, value in theirs.state_dict().items():
            if "running" in key or value.dim() == 1:
                value.copy_(torch.rand_like(value.float()) * 0.5 + 0.5)
    return theirs


def make_ours(name):
    return create_model(name, num_classes=10, **({"dropout": 0.0} if name.startswith("vgg") else {}))


def silence(theirs):
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def difference(a, b, floor=0.0):
    """The largest difference, relative to the largest value, or to ``floor`` where that is larger."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=floor)).item()


@pytest.mark.parametrize(("project", "name"), CASES)
def test_their_weights_in_our_network_give_their_logits_and_gradients(request, record_property, project, name):
    theirs, ours = make_theirs(request, project, name), make_ours(name)
    silence(theirs)
    report = load_weights(ours, theirs.state_dict())
    assert len(report.renamed) + len(report.matched) == len(ours.state_dict())
    assert (report.adapted, report.skipped, report.missing) == ((), (), ())
    x = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = difference(ours.eval()(x), theirs.eval()(x))
    for net in (ours, theirs):
        net.train()
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(x), torch.arange(4)).backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    renamed = {own: name for name, own in report.renamed} | {name: name for name in report.matched}
    expected = dict(theirs.named_parameters())
    # A bias before a norm has no gradient but rounding: below a hundredth of the largest, that is the measure.
    floor = 1e-2 * max(parameter.grad.abs().max().item() for parameter in expected.values())
    worst = max(
        difference(gradient, expected[renamed[own]].grad.reshape(gradient.shape), floor)
        for own, gradient in gradients.items()
    )
    record_property("logits", f"{logits:.1e}")
    record_property("gradients", f"{worst:.1e}")
    assert logits <= 1e-5
    assert worst <= 1e-4


@pytest.mark.parametrize(("project", "name"), CASES)
def test_our_weights_in_their_network_give_our_logits(request, record_property, project, name):
    theirs, ours = make_theirs(request, project, name), make_ours(name)
    theirs.load_state_dict(export_weights(ours, project), strict=True)
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = difference(theirs.eval()(x), ours.eval()(x))
    record_property("logits", f"{logits:.1e}")
    assert logits <= 1e-5


@pytest.mark.parametrize("name", [name for name in ROWS if not name.startswith("plain")])
@pytest.mark.parametrize("project", ["torchvision", "timm"])
def test_every_name_that_both_have_is_the_same_network(request, project, name):
    module = request.getfixturevalue(project)
    known = module.models.list_models() if project == "torchvision" else module.list_models()
    if name not in known:
        pytest.skip(f"{project} has no {name}")
    make = module.models.get_model if project == "torchvision" else module.create_model
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in make(name, num_classes=10).state_dict().items()}
    ours = create_model(name, num_classes=10, device="meta")
    assert {theirs.name: theirs.shape for theirs in their_names(ours, project).values()} == shapes
    if (project, name) in CASES or ROWS[name].parameters > LIGHT:
        return
    theirs, ours = make_theirs(request, project, name), make_ours(name)
    load_weights(ours, theirs.state_dict())
    x = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert difference(ours.eval()(x), theirs.eval()(x)) <= 1e-5
    theirs.load_state_dict(export_weights(ours, project), strict=True)


@pytest.mark.parametrize("name", ["resnet18", "resnet50d", "resnetv2_50", "seresnet50", "vgg11_bn"])
def test_feature_maps_have_timms_numbers_and_values(request, name):
    timm, theirs, ours = request.getfixturevalue("timm"), make_theirs(request, "timm", name), make_ours(name)
    load_weights(ours, theirs.state_dict())
    told, maps = timm.create_model(name, features_only=True).feature_info, FeatureMaps(ours.eval())
    assert maps.feature_info.channels() == told.channels()
    assert maps.feature_info.reduction() == told.reduction()
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs.eval().forward_intermediates(x, intermediates_only=True)
        assert max(difference(*pair) for pair in zip(maps(x), expected, strict=True)) <= 1e-5


@pytest.mark.parametrize("tag", PRETRAINED)
def test_preprocessing_of_every_tag_is_timms(request, tag):
    request.getfixturevalue("timm")
    from timm.models import get_pretrained_cfg

    theirs, ours = get_pretrained_cfg(tag), PRETRAINED[tag].preprocessing
    assert PRETRAINED[tag].repository == theirs.hf_hub_id
    assert ours.side == (theirs.test_input_size or theirs.input_size)[1]
    assert ours.crop == (theirs.test_crop_pct or theirs.crop_pct)
    assert (ours.interpolation, ours.mean, ours.std) == (theirs.interpolation, theirs.mean, theirs.std)


def test_a_name_of_theirs_that_blurs_is_refused_by_its_name(request):
    theirs = request.getfixturevalue("timm").create_model("resnetblur18", num_classes=10).eval()
    ours = make_ours("resnet18").eval()
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    report = load_weights(ours, theirs.state_dict())
    assert report.architecture == UNKNOWN
    with torch.no_grad():
        assert difference(ours(x), theirs(x)) > 1e-3, "names and shapes agree, and the function does not"
    with pytest.raises(CheckpointError, match="blurs its maps"):
        load_weights(ours, {"arch": "resnetblur18", "state_dict": theirs.state_dict()})


def test_control_a_mixed_up_norm_shows(request):
    theirs, ours = make_theirs(request, "torchvision", "resnet18"), make_ours("resnet18")
    weights = dict(theirs.state_dict())
    weights["layer3.1.bn1.weight"], weights["layer3.1.bn2.weight"] = (
        weights["layer3.1.bn2.weight"],
        weights["layer3.1.bn1.weight"],
    )
    load_weights(ours, weights)
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert difference(ours.eval()(x), theirs.eval()(x)) > 1e-4
