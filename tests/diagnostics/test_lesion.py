import copy

import pytest
import torch

from resnetlab.diagnostics.lesion import lesion, movable_blocks, neighbours, random_sets
from resnetlab.errors import ConfigError
from resnetlab.models.surgery import drop_blocks
from resnetlab.models.zoo import create_model
from resnetlab.records import Metrics


def test_movable_blocks_are_those_that_keep_the_shape():
    movable, fixed = movable_blocks(create_model("cifar_resnet20", in_chans=1))
    assert fixed == ["stages.1.0", "stages.2.0"]
    assert len(movable) == 7
    assert movable_blocks(create_model("cifar_plain20", in_chans=1)) == (movable, fixed)


def test_every_change_is_scored_and_the_net_is_left_alone():
    net = create_model("cifar_resnet20", in_chans=1, num_classes=3).eval()
    before = copy.deepcopy(net.state_dict())
    seen = []

    def score(changed):
        blocks = sum(len(stage) for stage in changed.stages)
        seen.append(changed)
        return Metrics(loss=float(blocks), error=blocks / 10, n=1)

    told = []
    found = lesion(
        net, score, n=1, chance=0.5, draws=2, seed=1, on_progress=lambda done, total: told.append((done, total))
    )
    assert found.intact.loss == 9
    assert [change.blocks for change in found.dropped] == [[name] for name in movable_blocks(net)[0]]
    assert {change.loss for change in found.dropped} == {8}
    assert [(len(change.blocks), change.loss) for change in found.several] == [
        (2, 7), (2, 7), (4, 5), (4, 5), (6, 3)
    ]  # fmt: skip
    assert {change.loss for change in found.swapped} == {9}
    assert told[-1] == (len(seen), len(seen))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_dropping_an_identity_block_costs_nothing_and_of_a_plain_twin_it_costs():
    """A block whose branch gives zero is the identity; the plain twin's same block gives zero."""
    x = torch.randn(4, 1, 8, 8)
    for name, same in (("cifar_resnet14", True), ("cifar_plain14", False)):
        net = create_model(name, in_chans=1, num_classes=3).eval()
        with torch.no_grad():
            net.stages[0][1].branch.norm2.weight.zero_()
            whole, without = net(x), drop_blocks(net, ["stages.0.1"])(x)
        assert torch.equal(whole, without) is same


def test_random_sets_are_a_function_of_the_seed():
    names = [f"stages.0.{number}" for number in range(9)]
    assert random_sets(names, 3, 0) == random_sets(names, 3, 0)
    assert random_sets(names, 3, 0) != random_sets(names, 3, 1)
    assert [len(chosen) for chosen in random_sets(names, 2, 0)] == [2, 2, 4, 4, 8, 8, 9]


def test_neighbours_stand_in_one_stage_without_a_gap():
    names = ["stages.0.0", "stages.0.1", "stages.0.3", "stages.1.4"]
    assert neighbours(names) == [("stages.0.0", "stages.0.1")]


def test_a_net_without_such_blocks_is_refused():
    net = create_model("cifar_resnet8", in_chans=1)
    with pytest.raises(ConfigError, match="no block"):
        lesion(net, lambda _: Metrics(loss=0, error=0, n=1), n=1, chance=0.5)
