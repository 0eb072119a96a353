"""Networks whose names and shapes agree and whose functions do not: what is said of them is believed."""

import json
from argparse import Namespace

import pytest
import torch
from safetensors.torch import save, save_file

from resnetlab.core.errors import CheckpointError
from resnetlab.models.architectures import config_to_plain
from resnetlab.models.lookalikes import UNKNOWN
from resnetlab.models.weights import export_weights, load_weights
from resnetlab.models.zoo import create_model

CIFAR = {"stem": "cifar", "image_size": 32, "num_classes": 10}
LABML = {"strides": [2, 1, 1], "stem_pool": False, "stem_activation": False, "conv_bias": True, "shortcut": "B"}
META = {"device": "meta"}


def empty(name, **settings):
    """The network on no particular numbers, without drawing them."""
    return create_model(name, **settings, **META).to_empty(device="cpu")


def weights(name, dialect="torchvision", **settings):
    return {key: torch.zeros_like(value) for key, value in export_weights(empty(name, **settings), dialect).items()}


@pytest.mark.parametrize(
    "stated",
    [
        {"arch": "resnet18"},
        {"args": Namespace(model="resnet18", lr=0.1)},
        {"args": Namespace(arch="resnet18")},
        {"hyper_parameters": {"model_name": "resnet18"}},
    ],
)
def test_what_a_checkpoint_says_is_believed(stated):
    content = {"state_dict": weights("resnet18"), **stated}
    report = load_weights(empty("resnet18"), content)
    assert "; it says that it is a resnet18" in str(report).splitlines()[0]
    with pytest.raises(CheckpointError, match=r"is a resnet18, which has shortcut='B', and this network has 'A'"):
        load_weights(empty("resnet18", shortcut="A"), content)


@pytest.mark.parametrize(
    ("stated", "name", "settings", "message"),
    [
        ("resnetblur18", "resnet18", {}, "resnetblur18, whose names and shapes look alike, but it blurs"),
        ("resnetaa50", "resnet50", {}, "blurs its maps before every stride"),
        ("fcn_resnet50", "resnet50", {}, "its last stages may be dilated"),
        ("resnet50_caffe", "resnet50", {}, "stride is in the first 1×1"),
        ("resnet18", "resnet18", {"activation": "silu"}, "activation='relu'"),
        ("timm/resnet18.a1_in1k", "resnet18", {"stem_pool": False}, "stem_pool=True"),
        ("tv_resnet50", "resnet50", {"stride_in": "1x1"}, "stride_in='3x3'"),
    ],
)
def test_a_contradiction_is_refused_and_changes_nothing(tmp_path, stated, name, settings, message):
    torch.save({"arch": stated, "state_dict": weights(name)}, tmp_path / "net.pth")
    net = empty(name, **settings)
    before = net.stem.conv.weight.clone()
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(net, tmp_path / "net.pth")
    assert str(caught.value).startswith(str(tmp_path / "net.pth"))
    torch.testing.assert_close(net.stem.conv.weight, before, equal_nan=True)


@pytest.mark.parametrize(
    "stated", ["tv_resnet50", "gluon_resnet50_v1b", "ResNet50", "resnet50.tv2_in1k", "ssl_resnet50"]
)
def test_other_names_of_the_same_network_are_known(stated):
    report = load_weights(empty("resnet50"), {"arch": stated, "state_dict": weights("resnet50")})
    assert report.architecture == f"it says that it is a {stated}"


def test_a_config_beside_the_weights_is_believed(tmp_path):
    save_file(weights("resnet18"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnetblur18", "num_classes": 1000}))
    for source in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(CheckpointError, match=r"the config.json beside it says that it is a resnetblur18"):
            load_weights(empty("resnet18"), source)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "skresnet18"}))
    with pytest.raises(CheckpointError, match="none of resnetlab's networks; if you know that it computes the same"):
        load_weights(empty("resnet18"), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "model_args": {"aa_layer": "blur"}}))
    assert "options of its own" in load_weights(empty("resnet18"), tmp_path).architecture
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    assert load_weights(empty("resnet18"), tmp_path).architecture == "config.json says that it is a resnet18"
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_weights(empty("resnet18"), tmp_path)


@pytest.mark.parametrize("key", ["resnetlab", None])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shortcut": None}, "shortcut='A', and this network has None"),
        ({"pad": "center"}, "pad='append', and this network has 'center'"),
        ({"norm_eps": 1e-3}, "norm_eps=1e-05"),
        ({"strides": [1, 1, 1]}, r"strides=\(1, 2, 2\)"),
        ({"num_classes": 10, "stochastic_depth": 0.1, "init": "xavier"}, None),
    ],
)
def test_our_own_bundles_say_their_settings(tmp_path, settings, message, key):
    ours = create_model("cifar_resnet8")
    (tmp_path / "model.safetensors").write_bytes(save(export_weights(ours)))
    plain = config_to_plain(ours.config)
    # As bundles have it; and as they had it before they held classes and preprocessing.
    (tmp_path / "config.json").write_text(json.dumps({"library_name": "resnetlab"} | ({key: plain} if key else plain)))
    net = create_model("cifar_resnet8", seed=1, **settings)
    if message is None:
        assert load_weights(net, tmp_path).architecture == "config.json says the same architecture"
        return
    with pytest.raises(CheckpointError, match=message):
        load_weights(net, tmp_path)


def test_where_nothing_says_it_the_first_line_does():
    report = load_weights(empty("resnet18"), weights("resnet18"))
    assert report.architecture == UNKNOWN
    assert str(report).splitlines()[0].endswith("that it computes the same cannot be known from them")
    content = {"arch": "my_own_net", "state_dict": weights("resnet18")}
    assert "a name not known here" in load_weights(empty("resnet18"), content).architecture


def test_a_script_that_names_a_net_and_gives_it_another_stem_is_understood():
    content = {"arch": "resnet18", "state_dict": weights("resnet18", **CIFAR)}
    assert load_weights(empty("resnet18", **CIFAR), content).architecture == "it says that it is a resnet18"
    # The name says nothing of what the shapes contradict.
    assert (
        "other shapes" in load_weights(empty("resnet34"), {"arch": "resnet18", "m": weights("resnet34")}).architecture
    )
    odd = {"arch": "resnet18", "state_dict": weights("resnet18", widths=[8, 16, 32, 64])}
    assert "other shapes" in load_weights(empty("resnet18", widths=[8, 16, 32, 64]), odd).architecture


@pytest.mark.parametrize("dialect", ["akamaster", "kuangliu", "weiaicunzai", "fixup"])
def test_names_of_small_nets_mean_those_of_their_project(dialect):
    name, settings, stated = {
        "akamaster": ("cifar_resnet20", {"pad": "center"}, "resnet20"),
        "kuangliu": ("resnet18", CIFAR, "ResNet18"),
        "weiaicunzai": ("resnet18", CIFAR, "resnet18"),
        "fixup": ("cifar_resnet20", {"norm": "none", "scaling": "fixup_scalar"}, "fixup_resnet20"),
    }[dialect]
    content = {"arch": stated, "state_dict": weights(name, dialect, **settings)}
    assert load_weights(empty(name, **settings), content).architecture == f"it says that it is a {stated}"
    if dialect == "akamaster":
        with pytest.raises(CheckpointError, match=r"shortcut='A', and this network has None"):
            load_weights(empty("cifar_plain20"), content)
        content["arch"] = "resnet20_noshort"
        load_weights(empty("cifar_plain20"), content)
        with pytest.raises(CheckpointError, match=r"shortcut=None, and this network has 'A'"):
            load_weights(empty(name, **settings), content)


def test_labmls_small_stem_has_stride_two():
    """Its kernel of 3 has the shape of the stem that keeps the map, and the names; its stride is 2 all the same."""
    theirs = weights("cifar_resnet20", "labml", stem_stride=2, **LABML)
    with pytest.raises(CheckpointError, match=r"labml have stem_stride=2 and this one has 1.*stem_stride=2\)"):
        load_weights(empty("cifar_resnet20", **LABML), theirs)
    load_weights(empty("cifar_resnet20", stem_stride=2, **LABML), theirs)
