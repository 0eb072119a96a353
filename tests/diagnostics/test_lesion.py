import copy
from dataclasses import replace
from math import exp, log1p, sqrt
from statistics import fmean

import pytest
import torch
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError
from resnetlab.diagnostics.lesion import explain, judge, lesion, movable_blocks, neighbours, random_sets
from resnetlab.models.surgery import drop_blocks
from resnetlab.models.zoo import create_model
from resnetlab.records.diagnosis import Lesion, LesionResult
from resnetlab.records.run import Metrics
from tests.conftest import make_data
from tests.diagnostics.nets import diagnosed, measured
from tests.made import diagnosis, lesion_result


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


RATIOS, LABELS = (0.1, 0.2, 0.5, 0.6, 2.0, 5.0), (1, 1, 0, 0, 0, 1)


def three_blocks():
    """Blocks A, B, C on pairs (p, q) of numbers ≥ 0: A gives (3p, q), B and C exchange p and q. Class 0 where p > q."""
    net = create_model("mlp_resnet8", in_chans=2, image_size=1, num_classes=2, widths=(2,)).double().eval()
    triple, exchange = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    with torch.no_grad():
        for layer in (net.stem.linear1, net.head):
            layer.weight.copy_(torch.eye(2))
        for block, weight in zip(net.stages[0], (triple, exchange, exchange), strict=True):
            block.branch.linear1.weight.copy_(torch.eye(2))
            block.branch.linear2.weight.copy_(weight)
    return net


def scored(net):
    x = torch.tensor([[ratio, 1.0] for ratio in RATIOS], dtype=torch.float64).view(-1, 2, 1, 1)
    logits, labels = net(x), torch.tensor(LABELS)
    wrong = (logits.argmax(dim=1) != labels).double().mean()
    return Metrics(loss=F.cross_entropy(logits, labels).item(), error=wrong.item(), n=len(RATIOS))


def by_hand(p, q, wrong):
    """``p`` and ``q`` as multiples of the pair's own, such as (3, 0) for 3p."""
    margins = [(p[0] - q[0]) * ratio + p[1] - q[1] for ratio in RATIOS]
    signed = [margin if label == 0 else -margin for margin, label in zip(margins, LABELS, strict=True)]
    assert sum(value < 0 for value in signed) == wrong
    return pytest.approx(wrong / 6, abs=1e-10), pytest.approx(fmean(log1p(exp(-v)) for v in signed), abs=1e-10)


@torch.no_grad()
def test_lesions_of_three_linear_blocks_are_those_counted_by_hand():
    found = lesion(three_blocks(), scored, n=6, chance=0.5, draws=2)

    def seen(change):
        return change.error, change.loss

    # A, exchanged twice: class 0 where 3p > q, which is wrong for the last image alone.
    assert seen(found.intact) == by_hand((3, 0), (0, 1), 1)
    assert [change.blocks for change in found.dropped] == [["stages.0.0"], ["stages.0.1"], ["stages.0.2"]]
    # Without A: where p > q.
    assert seen(found.dropped[0]) == by_hand((1, 0), (0, 1), 3)
    # Without B or C: where q > 3p.
    assert seen(found.dropped[1]) == seen(found.dropped[2]) == by_hand((0, 1), (3, 0), 5)
    # Without both, as with both.
    (several,) = found.several
    assert several.blocks == ["stages.0.1", "stages.0.2"]
    assert seen(several) == by_hand((3, 0), (0, 1), 1)
    # B, A, C: where p > 3q. A, C, B: as before.
    assert [change.blocks for change in found.swapped] == [["stages.0.0", "stages.0.1"], ["stages.0.1", "stages.0.2"]]
    assert seen(found.swapped[0]) == by_hand((1, 0), (0, 3), 4)
    assert seen(found.swapped[1]) == by_hand((3, 0), (0, 1), 1)
    assert found.costs == pytest.approx([2 / 6, 4 / 6, 4 / 6], abs=1e-10)


@pytest.mark.parametrize(
    ("costs", "verdict"),
    [((0.0, 0.0399, 0.9), "robust"), ((0.0, 0.0401, 0.9), "between"), ((0.0, 0.1999, 0.9), "between"),
     ((0.0, 0.2001, 0.21), "fragile")],
)  # fmt: skip
def test_verdict_is_the_median_cost_over_the_way_to_chance(costs, verdict):
    """From an error of 0.5 to that of chance it is 0.4 here: a tenth of that is 0.04, half of it 0.2."""
    changes = [Lesion(blocks=[f"stages.0.{n}"], error=0.5 + cost, loss=1.0) for n, cost in enumerate(costs)]
    intact = Lesion(blocks=[], error=0.5, loss=1.0)
    result = LesionResult(n=9, chance=0.9, intact=intact, dropped=changes, several=[], swapped=[], fixed=[])
    assert judge(result) == verdict


def test_random_sets_take_every_block_equally_often_and_none_twice():
    """2 of 9 blocks: each is in 2/9 of the sets, with the standard deviation √(n · 2/9 · 7/9)."""
    names, draws = [f"stages.0.{number}" for number in range(9)], 900
    sets = [chosen for chosen in random_sets(names, draws, 0) if len(chosen) == 2]
    assert len(sets) == draws
    assert all(len(set(chosen)) == 2 and chosen == sorted(chosen) for chosen in sets)
    counts = [sum(name in chosen for chosen in sets) for name in names]
    assert counts == [pytest.approx(draws * 2 / 9, abs=4 * sqrt(draws * 2 / 9 * 7 / 9))] * 9
    assert len({tuple(chosen) for chosen in sets}) == 36, "every pair is drawn"
    few = [chosen for chosen in random_sets(names, 2, 0) if len(chosen) == 2]
    assert few == sets[:2], "a set is a function of its size and number"


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


def test_images_and_their_chance_are_counted():
    """Of 30 test images in turn of three classes two thirds are not of the most frequent one."""
    net = diagnosed(make_data(test=30), "cifar_resnet14")
    some = measured(net, "lesion", images=12)
    assert some.lesion.n == 12
    assert 0 < some.lesion.chance <= 2 / 3
    assert some.blocks == []
    whole = measured(net, "lesion", images=99).lesion
    assert (whole.n, whole.chance) == (30, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("errors", "intact", "verdict"),
    [((0.1, 0.18, 0.9), 0.1, "robust"), ((0.1, 0.5, 0.9), 0.1, "fragile"), ((0.1, 0.3, 0.9), 0.1, "between"),
     ((0.9, 0.9, 0.9), 0.85, "untrained")],
)  # fmt: skip
def test_verdict_is_explained_by_what_can_be_lost(errors, intact, verdict):
    made = diagnosis()
    made = replace(made, net=replace(made.net, lesion=lesion_result(*errors, intact=intact)), plain=None)
    found = explain(made)
    assert found.verdict == verdict
    assert "n = 50 test images" in found.sentences[0]
    assert "n = 50 validation images" in explain(replace(made, split="validation")).sentences[0]
    if verdict == "robust":
        told = "without one block +8.00 points in the median of 3 blocks, at worst +80.00 without stages.0.2"
        assert told in found.sentences[0]
        assert found.advice[0].startswith("Without stages.0.0 the error is not higher")
        both = explain(
            replace(made, net=replace(made.net, lesion=lesion_result(intact, intact, intact, intact=intact)))
        )
        assert both.advice[0].startswith("Without stages.0.0, stages.0.1, stages.0.2, each alone, the error")
