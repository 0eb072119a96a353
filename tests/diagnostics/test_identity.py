"""The deepened copy of a network, in cases whose answer is known before."""

from dataclasses import replace

import pytest
import torch

from resnetlab.diagnostics.load import INITIAL, Subject
from resnetlab.diagnostics.soundings import read_identity, unwatched
from resnetlab.models.zoo import create_model
from resnetlab.train.config import TrainConfig
from resnetlab.train.evaluate import evaluate
from resnetlab.train.recipe import Recipe


def read(net, data, lr: float, **changes):
    training = TrainConfig(epochs=1, lr=lr, batch_size=24, device="cpu", **changes)
    subject = Subject(
        net=net, data=data, recipe=Recipe(training=training), state=INITIAL, run=False, trained=True, notes=[]
    )
    return read_identity(subject, 0, 2, epochs=1, seed=0, progress=unwatched)


def test_a_rate_of_nothing_leaves_both_nets_equal_to_the_bit(data):
    """Without learning F stays 0 in the new blocks, and the statistics of the others' norms move alike."""
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3)
    found = read(net, data, 1e-30)
    assert (found.added, found.blocks, found.equal) == (2, 5, True)
    assert found.before == evaluate(net, data)
    assert found.deeper == found.same
    assert found.same != found.before, "the statistics have moved"


def test_a_rate_that_teaches_makes_them_differ(data):
    """The control of the test above."""
    found = read(create_model("cifar_resnet8", in_chans=1, num_classes=3), data, 1.0)
    assert found.deeper.loss != found.same.loss
    assert found.equal


@pytest.mark.parametrize("name", ["cifar_preact_resnet8", "mlp_resnet8"])
def test_deepened_net_of_every_order_answers_as_before(data, name):
    net = create_model(name, in_chans=1, num_classes=3, image_size=8)
    found = read(net, replace(data), 1e-30)
    assert found.equal
    assert found.deeper.error == pytest.approx(found.same.error)
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    # Class 0 is named for every image: 26 of 40 are of others.
    assert read(net, data, 1e-30).before.error == pytest.approx(26 / 40, abs=1e-10)
