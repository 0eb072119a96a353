"""Initial weights and batches are those of 0.1.0 to the bit: names of parameters and keys of streams are interface."""

import hashlib

import pytest
import torch

from resnetlab import TrainConfig, create_model, load_data
from resnetlab.data.config import AugmentConfig
from resnetlab.train.prepare import make_loader

TINY = {"depths": (1, 1, 1, 1), "widths": (32, 32, 32, 32), "groups": 4, "stem_width": 8}
NETS = [
    ("cifar_resnet8", {}, "f6c2354a42ef80f5"),
    ("cifar_plain20", {}, "0ed63f2b3848675b"),
    ("cifar_preact_resnet20", {"depths": (1, 1, 1)}, "d93a1c3e8e0da016"),
    ("wide_resnet28_10", {"depths": (1, 1, 1), "widths": (32, 64, 128)}, "23d761cf89a4b471"),
    ("resnet18", {"widths": (8, 16, 24, 32), "stem_width": 8}, "83f1b27ed86d2f9b"),
    ("resnext50_32x4d", TINY, "7434d56e9dbca8ff"),
    ("seresnext50_32x4d", TINY | {"zero_init_residual": True}, "9ee3b0dcf4460205"),
    ("mlp_resnet16", {}, "3cde270d6e9ca146"),
    ("mlp_plain16", {"norm": "batch"}, "b7210cc45d4fbfbc"),
    ("cifar_resnet20", {"shortcut": "C", "norm": "group", "init": "xavier"}, "6c8637fd52f750c8"),
]
BATCHES = [
    ({}, "221c9aa2053f695f"),
    ({"flip": True, "cutout": 3}, "cb20e96cf9e84286"),
    ({"crop_padding": 0}, "e0ab85abab2b79ad"),
]


def weights_of(seed: int, name: str, options: dict) -> str:
    net = create_model(name, seed=seed, num_classes=10, **options)
    content = hashlib.sha256()
    for key, tensor in sorted(net.state_dict().items()):
        content.update(key.encode())
        content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


@pytest.mark.parametrize(("name", "options", "expected"), NETS, ids=[name for name, *_ in NETS])
def test_initial_weights_and_their_names_are_those_of_0_1_0(name, options, expected):
    assert weights_of(3, name, options) == expected


def test_another_seed_gives_other_weights():
    """The control of the test above."""
    assert weights_of(4, "cifar_resnet8", {}) != weights_of(3, "cifar_resnet8", {})


@pytest.mark.parametrize(("augment", "expected"), BATCHES)
def test_batches_of_an_epoch_are_those_of_0_1_0(augment, expected):
    config = TrainConfig(batch_size=64, augment=AugmentConfig(**augment))
    loader = make_loader(load_data("digits"), config, torch.device("cpu"), seed=5)
    content = hashlib.sha256()
    for images, labels in loader.shuffled(5, epoch=2):
        content.update(images.contiguous().numpy().tobytes())
        content.update(labels.numpy().tobytes())
    assert content.hexdigest()[:16] == expected
