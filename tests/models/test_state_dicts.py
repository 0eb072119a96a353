"""Networks within what training scripts save: wrappers, prefixes, averages, and which of several is meant."""

from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from resnetlab.core.errors import CheckpointError
from resnetlab.models.key_mapping import find_prefix
from resnetlab.models.weights import export_weights, inspect_weights, load_weights
from resnetlab.models.zoo import create_model

SMALL = {"widths": [4, 8, 16, 32], "num_classes": 5}


def small(seed=0, **settings):
    return create_model("resnet18", seed=seed, **(SMALL | settings)).eval()


RAW, AVERAGE = export_weights(small(1), "torchvision"), export_weights(small(2), "torchvision")
HEADLESS = {name: value for name, value in RAW.items() if not name.startswith("fc.")}


def put(words, weights=RAW):
    return {words + name: value for name, value in weights.items()}


def is_raw(net):
    return torch.equal(net.stem.conv.weight, RAW["conv1.weight"])


PREFIXES = [
    *("module.", "model.", "net.", "backbone.", "encoder.", "encoder_q.", "teacher.", "_orig_mod."),
    *("module._orig_mod.", "_orig_mod.module.", "model._orig_mod.module.", "network.0.", "module.encoder_q.", "1."),
    *("base_encoder.", "student.module.backbone.", "my_words.of.a.kind."),
]


@pytest.mark.parametrize("words", PREFIXES)
@pytest.mark.parametrize("dialect", ["resnetlab", "torchvision"])
def test_whatever_stands_before_every_name_is_taken_off(words, dialect):
    net = small()
    report = load_weights(net, put(words, export_weights(small(1), dialect)))
    assert report.which == words.replace("_orig_mod.", "").removesuffix(".")
    assert (report.skipped, report.missing, report.dialect) == ((), (), dialect)
    assert is_raw(net)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("layer1.0.conv1.weight", ""),
        ("module.layer1.0.conv1.weight", "module."),
        ("model.stages.0.blocks.0.conv1.weight", "model."),  # timm's, not labml's behind "model.stages.0."
        ("module.0.blocks.0.conv1.weight", "module."),
        ("0.blocks.0.conv1.weight", ""),
        ("resnet50/conv1_conv/kernel:0", "resnet50/"),
        ("conv2_block1_1_conv/conv2_block1_1_conv/kernel:0", ""),
        ("model_weights/conv1_bn/resnet50/conv1_bn/gamma:0", "model_weights/"),
        ("projector.linear.weight", None),
        ("queue", None),
        ("", None),
        ("a" * 5000 + "." * 5000, None),
    ],
)
def test_a_network_begins_where_a_known_name_does(name, prefix):
    assert find_prefix(name) == prefix


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": w, "epoch": 3, "best_acc1": 0.9},
        lambda w: {"model": w, "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []}},
        lambda w: {"net": put("module.", w), "acc": 95.0, "epoch": 1},
        lambda w: {"model_state_dict": w, "loss": 0.1},
        lambda w: {"checkpoint": {"weights": {"params": w}}},
        lambda w: [w, {"lr": 0.1}],
        lambda w: {"model": w, "args": Namespace(lr=0.1, output_dir=".")},
        lambda w: {"net": w, "acc": np.float64(95.1)},
        lambda w: {"ema": w},
        lambda w: {"n_averaged": torch.tensor(5), **put("module.", w)},
        lambda w: {"state_dict": w, "itself": None},
    ],
)
def test_wrappers_of_training_scripts_are_taken_off(tmp_path, wrap):
    torch.save(wrap(RAW), tmp_path / "net.pth")
    net = small()
    report = load_weights(net, tmp_path / "net.pth")
    assert is_raw(net)
    assert set(report.skipped) <= {"n_averaged"}


def test_a_checkpoint_that_holds_itself_ends():
    content = {"state_dict": RAW}
    content["again"] = content
    net = small()
    load_weights(net, content)
    assert is_raw(net)


SEVERAL = {
    "timm": {"state_dict": RAW, "state_dict_ema": AVERAGE, "arch": "resnet18"},
    "torchvision": {"model": RAW, "model_ema": {"n_averaged": torch.tensor(5), **put("module.", AVERAGE)}},
    "dino": {"student": put("module.backbone.", RAW), "teacher": put("backbone.", AVERAGE)},
    "moco": {"state_dict": put("module.encoder_q.", RAW) | put("module.encoder_k.", AVERAGE)},
    "lightning": {"state_dict": put("model.", RAW) | put("ema_model.module.", AVERAGE)},
    "in one": RAW | put("ema.", AVERAGE),
    "swa": {"net": RAW, "swa": AVERAGE},
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_an_average_beside_the_raw_weights_is_named_and_asked_for(tmp_path, kind):
    path = tmp_path / "net.pth"
    torch.save(SEVERAL[kind], path)
    net = small()
    before = net.stem.conv.weight.clone()
    with pytest.raises(CheckpointError, match=r"holds 2 networks: .* an average.*which='ema' .*--which ema"):
        load_weights(net, path)
    assert torch.equal(net.stem.conv.weight, before)
    labels = [found.label for found in inspect_weights(path)]
    for which, expected in (("raw", RAW), ("ema", AVERAGE), *zip(labels, (RAW, AVERAGE), strict=True)):
        if which:
            report = load_weights(net, path, which=which)
            assert torch.equal(net.stem.conv.weight, expected["conv1.weight"]), which
            assert report.missing == ()
    assert [found.average for found in inspect_weights(path)] == [False, True]
    with pytest.raises(CheckpointError, match=r"which='nothing' names none of its networks: "):
        load_weights(net, path, which="nothing")


def test_a_key_of_the_way_to_a_network_chooses_it():
    content = {"runs": {"a": {"model": RAW}, "b": {"model": AVERAGE}}}
    net = small()
    load_weights(net, content, which="a")
    assert is_raw(net)
    with pytest.raises(CheckpointError, match="which='model' names 2 of its networks"):
        load_weights(net, content, which="model")
    with pytest.raises(CheckpointError, match=r"choose one by which='runs\.a\.model'"):
        load_weights(net, content)


def test_averages_that_torch_makes_are_averages(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer1 = nn.Sequential(nn.Sequential())
            self.layer1[0].conv1 = nn.Conv2d(1, 1, 1)

    found = inspect_weights(AveragedModel(Wrapped()).state_dict())
    assert [(one.label, one.average, one.outside) for one in found] == [("module", True, ("n_averaged",))]


def test_backbones_of_self_supervision_load_with_a_new_head():
    """Barlow Twins', MoCo's and SimCLR's: torchvision's names behind words, with heads of several layers."""
    barlow = {"model": put("module.backbone.", HEADLESS) | {"module.projector.0.weight": torch.zeros(9, 32)}}
    moco = put("module.encoder_q.", HEADLESS | {"fc.0.weight": torch.zeros(9, 32), "fc.2.bias": torch.zeros(4)})
    simclr = put("backbone.", HEADLESS | {"fc.0.weight": torch.zeros(9, 32), "fc.2.weight": torch.zeros(4, 9)})
    for content, skipped in (
        (barlow, ("module.projector.0.weight",)),
        (moco | {"module.queue": torch.zeros(2)}, ("fc.0.weight", "fc.2.bias", "module.queue")),
        (simclr, ("fc.0.weight", "fc.2.weight")),
        (put("module.", HEADLESS | {"prototypes.weight": torch.zeros(3, 9)}), ("prototypes.weight",)),  # SwAV's
        (HEADLESS, ()),
    ):
        with pytest.raises(CheckpointError, match=r"'fc.weight' is missing; pass reset_head=True"):
            load_weights(small(), content)
        report = load_weights(small(), content, reset_head=True)
        assert (report.skipped, report.missing) == (skipped, ("head.weight", "head.bias"))
        headless = small(num_classes=0)
        load_weights(headless, content, reset_head=True)
        assert is_raw(headless)


def test_blocks_beyond_the_networks_are_no_head():
    deeper = HEADLESS | {"layer5.0.conv1.weight": torch.zeros(2, 2, 3, 3), "bn9.bias": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"'layer5.0.conv1.weight' of shape .* has no place in the network; 'bn9"):
        load_weights(small(), deeper, reset_head=True)


def test_names_of_layers_that_are_compiled_or_wrapped_one_by_one_are_theirs():
    weights = {name.replace("layer1.", "layer1._orig_mod."): value for name, value in RAW.items()}
    weights = {name.replace("layer2.0.", "layer2.0._checkpoint_wrapped_module."): v for name, v in weights.items()}
    net = small()
    assert load_weights(net, weights).skipped == ()
    assert torch.equal(net.stages[1][0].branch.conv1.weight, RAW["layer2.0.conv1.weight"])
    with pytest.raises(CheckpointError, match="two tensors of one name"):
        load_weights(net, RAW | weights)


def test_floating_point_counters_load_as_whole_numbers():
    weights = {k: v.float() + 2.6 if k.endswith("num_batches_tracked") else v for k, v in RAW.items()}
    weights["bn1.num_batches_tracked"] = torch.tensor([7.0])
    net = small()
    load_weights(net, weights)
    assert net.stem.norm.num_batches_tracked.item() == 7
    assert net.stages[0][0].branch.norm1.num_batches_tracked.item() == 3


def test_numbers_that_are_not_finite_are_said():
    broken = RAW | {"bn1.bias": torch.tensor([0.0, float("nan"), 1.0, float("inf")])}
    report = load_weights(small(), broken)
    assert report.not_finite == (("stem.norm.bias", 2),)
    assert "NaN or infinite in stem.norm.bias (2)" in str(report).splitlines()[1]
    assert [one.not_finite for one in inspect_weights(broken)] == [("bn1.bias",)]
    assert load_weights(small(), RAW).not_finite == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (nn.Linear(1, 1), "it is a Linear, not a state dict"),
        ([RAW["fc.bias"]], "it is a list, not a state dict"),
        ({}, "holds no tensors by name: it is a dict, not a state dict"),
        ({"epoch": 3, "acc": 0.5}, "but 'epoch', a int, 'acc', a float"),
        ({"a": {"b": torch.zeros(2)}}, r"names of its 1 tensors \('b'\) are those of no known project"),
        ({"model": SimpleNamespace()}, "'model', a SimpleNamespace"),
        ({"enc\x1b[31m": torch.zeros(2)}, r"'enc\\x1b\[31m'"),
        (put("module.", {"x/conv1_conv/kernel": torch.zeros(1), "conv1_conv/y/kernel": torch.zeros(1)}), "."),
    ],
)
def test_what_is_no_network_is_said_on_one_line_with_the_way_out(content, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(small(), content)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
