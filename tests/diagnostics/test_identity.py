from dataclasses import replace

import pytest
import torch

from resnetlab.diagnostics.identity import equal_logits, explain, further
from resnetlab.models.surgery import deepen
from resnetlab.train.config import TrainConfig
from resnetlab.train.evaluate import evaluate
from resnetlab.train.recipe import Recipe
from tests.diagnostics.nets import diagnosed, measured
from tests.made import diagnosis


def net_of(data, name: str = "cifar_resnet8", lr: float = 1e-30):
    training = TrainConfig(epochs=1, lr=lr, batch_size=24, device="cpu")
    return diagnosed(data, name, Recipe(model=name, training=training))


def deepened(net):
    return measured(net, "identity", added=2, epochs=1).identity


def test_a_rate_of_nothing_leaves_both_nets_equal_to_the_bit(data):
    """Without learning F stays 0 in the new blocks, and the statistics of the others' norms move alike."""
    net = net_of(data)
    found = deepened(net)
    assert (found.added, found.blocks, found.equal) == (2, 5, True)
    assert found.before == evaluate(net.net, data)
    assert found.deeper == found.same
    assert found.same != found.before, "the statistics have moved"


def test_a_rate_that_teaches_makes_them_differ(data):
    """The control of the test above."""
    found = deepened(net_of(data, lr=1.0))
    assert found.deeper.loss != found.same.loss
    assert found.equal


@pytest.mark.parametrize("name", ["cifar_preact_resnet8", "mlp_resnet8"])
def test_deepened_net_of_every_order_answers_as_before(data, name):
    net = net_of(data, name)
    found = deepened(net)
    assert found.equal
    assert found.deeper.error == pytest.approx(found.same.error)
    with torch.no_grad():
        net.net.head.weight.zero_()
        net.net.head.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    # Class 0 is named for every image: 26 of 40 are of others.
    assert deepened(net).before.error == pytest.approx(26 / 40, abs=1e-10)


def test_deepened_net_has_equal_logits_and_a_changed_one_has_not(data):
    net = net_of(data).net
    deeper = deepen(net, 0, 1)
    assert equal_logits(net, deeper, data)
    with torch.no_grad():
        deeper.stages[0][1].branch.norm2.weight[0] = 1e-3
    assert not equal_logits(net, deeper, data)


def test_training_on_takes_a_tenth_of_the_rate_and_no_milestones():
    config = further(TrainConfig(epochs=9, lr=1.0, schedule="step", milestones=(3,), batch_size=16), 2)
    assert (config.epochs, config.lr, config.schedule, config.milestones, config.batch_size) == (
        2, 0.1, "cosine", (), 16
    )  # fmt: skip


def test_equal_bits_are_told():
    made = diagnosis()
    assert explain(made).verdict == "equal"
    other = replace(made.net, identity=replace(made.net.identity, equal=False))
    assert explain(replace(made, net=other)).verdict == "not equal"
