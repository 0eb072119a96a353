"""What a moment of a run has beside its gradients, by cases that are solved by hand."""

from dataclasses import replace
from math import exp, log

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnetlab.models.zoo import create_model
from resnetlab.records.gradients import moment
from resnetlab.train.gradients import Trace, block_gradients, largest, measure_all, relative_changes, weights_by_block
from resnetlab.train.moments import (
    DISTANCE,
    blocks_of,
    cosine,
    cosines,
    effective_rank,
    left_as_it_was,
    neighbours,
    singular_values,
    stable_rank,
    tapped,
)
from tests.train.test_trace import counter


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Waves(nn.Module):
    """Logits ± Σ sin(k x): its gradient k cos(k x) has another sign at each place, and nearby another one."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 1), k))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = (x.flatten(1) * self.weight).sin().sum(dim=1, keepdim=True)
        return torch.cat([total, -total], dim=1)


class Linear(nn.Module):
    def __init__(self, outputs: int = 2, features: int = 64) -> None:
        super().__init__()
        self.head = nn.Linear(features, outputs, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


def figures(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, distance: float = DISTANCE):
    return measure_all(net, images, labels, neighbours(images, 0, distance), 0, 1)[1]


def test_neighbour_lies_as_far_as_it_says_in_a_direction_of_its_own():
    images = draw(5, 3, 8, 8)
    near = neighbours(images, 1, 0.05)
    deltas = (near - images).flatten(1)
    assert (deltas.norm(dim=1) / images.flatten(1).norm(dim=1)).tolist() == pytest.approx([0.05] * 5, rel=1e-4)
    assert abs(F.cosine_similarity(deltas[:1], deltas[1:]).max()) < 0.25
    assert torch.equal(neighbours(images, 1, 0.05), near)
    assert not torch.equal(neighbours(images, 2, 0.05), near)


def test_cosine_is_that_of_torch_and_none_where_there_is_no_direction():
    a, b = draw(6, 2, 5), draw(6, 2, 5, seed=1)
    assert cosines(a, b).tolist() == pytest.approx(F.cosine_similarity(a.flatten(1), b.flatten(1)).tolist(), abs=1e-6)
    assert cosine([a[:2], a[2:]], [b[:2], b[2:]]) == pytest.approx(
        F.cosine_similarity(a.flatten(), b.flatten(), dim=0).item(), abs=1e-6
    )
    assert cosine([torch.zeros(3)], [torch.ones(3)]) is None
    assert cosine([torch.full((3,), float("inf"))], [torch.ones(3)]) is None


def test_gradients_of_neighbours_are_alike_in_a_linear_net_and_white_noise_where_it_swings():
    """Of two classes ∂L/∂x = (p₁ - y₁)(w₁ - w₀): at every x along one line. Of a sine much faster than the distance the
    two cosines are independent: their mean product is 0."""
    images, labels = draw(32, 1, 8, 8), torch.arange(32) % 2
    assert figures(Linear(), images, labels).correlation == pytest.approx(1, abs=1e-6)
    assert abs(figures(Waves(1e4), images, labels, 0.5).correlation) < 0.1
    assert figures(Waves(1e-3), images, labels).correlation == pytest.approx(1, abs=1e-4)


def test_correlation_is_taken_at_what_the_first_block_reads():
    net = create_model("cifar_plain14", in_chans=1)
    images, labels = draw(8, 1, 8, 8), torch.arange(8)
    near = neighbours(images, 0)
    sides = []
    for batch in (images, near):
        x = net.train().stem(batch).detach().requires_grad_()
        F.cross_entropy(net.forward_head(net.finish(net.stages(x))), labels).backward()
        sides.append(x.grad)
    assert measure_all(net, images, labels, near, 0, 1)[1].correlation == pytest.approx(
        cosines(*sides).mean().item(), abs=1e-5
    )


def test_halves_agree_where_they_are_equal_and_oppose_each_other_where_their_labels_do():
    """With W = 0 the gradient is (½ - y) xᵀ: other labels turn its sign."""
    net = Linear()
    nn.init.zeros_(net.head.weight)
    images = draw(4, 1, 8, 8).repeat(2, 1, 1, 1)
    same, other = torch.tensor([0, 1, 1, 0] * 2), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
    assert figures(net, images, same).agreement == pytest.approx(1, abs=1e-6)
    assert figures(net, images, other).agreement == pytest.approx(-1, abs=1e-6)
    assert figures(net, images[:3], same[:3]).agreement is None


@pytest.mark.parametrize("name", ["cifar_resnet8", "mlp_resnet8", "none"])
def test_gradients_are_those_of_the_pass_without_the_rest_and_the_net_is_left_alone(name):
    """A net without blocks is one: its images are what it reads, its logits what it gives."""
    net = Linear(4) if name == "none" else create_model(name, in_chans=1, num_classes=4)
    net.eval()
    images, labels = draw(4, 1, 8, 8), torch.arange(4)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.get_rng_state()
    gradients, rest = measure_all(net, images, labels, neighbours(images, 0), 0, 1)
    assert gradients == block_gradients(net, images, labels, 0)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not net.training
    assert not images.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert None not in (rest.correlation, rest.agreement, rest.rank)
    assert rest == replace(moment(1, gradients), correlation=rest.correlation, agreement=rest.agreement, rank=rest.rank)


def test_recomputed_blocks_give_the_same_figures():
    from resnetlab.models.recompute import recompute_blocks

    net = create_model("cifar_resnet14", in_chans=1)
    images, labels = draw(8, 1, 8, 8), torch.arange(8)
    expected = figures(net, images, labels)
    assert figures(recompute_blocks(net, 2), images, labels) == expected


@pytest.mark.parametrize(
    ("values", "effective", "stable"),
    [
        ([1, 1, 1], 3, 3),
        ([2, 1, 1], exp(0.5 * log(2) + 0.5 * log(4)), 1.5),
        ([5, 0, 0], 1, 1),
        ([0, 0, 0], 0, 0),
        ([1, float("nan"), 0], None, None),
    ],
)
def test_ranks_are_those_of_the_formulas(values, effective, stable):
    given = torch.tensor(values, dtype=torch.float64)
    assert effective_rank(given) == (None if effective is None else pytest.approx(effective, abs=1e-12))
    assert stable_rank(given) == (None if stable is None else pytest.approx(stable, abs=1e-12))


def test_singular_values_are_those_of_the_centred_matrix():
    rows = draw(6, 4, 3)
    flat = rows.flatten(1).double()
    expected = torch.linalg.svdvals(flat - flat.mean(dim=0))
    assert singular_values(rows).flip(0).tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert singular_values(torch.full((3, 2), float("inf"))).isnan().all()


def test_images_that_are_alike_have_few_ranks_and_orthogonal_ones_all():
    """Of N equal rows nothing is left; of two rows, each twice, one direction; N orthogonal ones less their mean are a
    regular simplex, which fills N - 1 directions evenly."""
    one, two = draw(1, 12), draw(2, 12)
    assert effective_rank(singular_values(one.repeat(4, 1))) == pytest.approx(0, abs=1e-6)
    assert effective_rank(singular_values(two.repeat(2, 1))) == pytest.approx(1, abs=1e-6)
    simplex = singular_values(3 * torch.eye(5, 12))
    assert effective_rank(simplex) == pytest.approx(4, abs=1e-6)
    assert stable_rank(simplex) == pytest.approx(4, abs=1e-6)


def test_rank_is_that_of_what_the_last_block_gives():
    net = create_model("cifar_resnet8", in_chans=1)
    images, labels = draw(8, 1, 8, 8), torch.arange(8)
    given = []
    last = list(blocks_of(net).values())[-1]
    handle = last.register_forward_hook(lambda _module, _inputs, y: given.append(y))
    net.train()(images)
    handle.remove()
    assert figures(net, images, labels).rank == pytest.approx(effective_rank(singular_values(given[0])), abs=1e-4)


def test_overflow_has_no_figures():
    net = Linear()
    with torch.no_grad():
        net.head.weight.fill_(float("inf"))
    found = figures(net, draw(4, 1, 8, 8), torch.arange(4) % 2)
    assert (found.correlation, found.agreement, found.rank) == (None, None, None)


def test_change_is_that_of_the_step_over_all_weights_and_in_the_block_that_moved_most():
    """Weights of norm 3 and 4 that move by 3 and 1: √10 / 5 in all, and 1 in the first."""
    before = {"a": [torch.tensor([[3.0]])], "b": [torch.tensor([[0.0, 4.0]])]}
    after = {"a": [torch.tensor([[6.0]])], "b": [torch.tensor([[1.0, 4.0]])]}
    whole, blocks = relative_changes(before, after)
    assert whole == pytest.approx(10**0.5 / 5)
    assert blocks == pytest.approx({"a": 1.0, "b": 0.25})
    assert largest(blocks.values()) == 1.0
    whole, blocks = relative_changes(before, {**after, "a": [torch.tensor([[float("nan")]])]})
    assert (whole, blocks["a"], largest(blocks.values())) == (None, None, None)


def test_weights_are_kept_only_for_the_step_that_is_measured():
    net = nn.Linear(2, 2)
    trace = Trace(measure=counter, changes=True)
    for step in range(1, 6):
        trace.remember_if_due(net, step)
        assert bool(trace.before) == (step in (1, 2, 4))
        if trace.before:
            assert trace.before["weight"][0].data_ptr() != net.weight.data_ptr()
        with torch.no_grad():
            net.weight.mul_(1.5)
        trace.measure_if_due(net, step)
        assert not trace.before
    assert [one.change for one in trace.moments] == pytest.approx([0.5] * 3)
    assert list(weights_by_block(net)) == ["weight"]


def test_taps_see_the_first_pass_alone_and_leave_no_hook():
    net = Linear()
    with left_as_it_was(net, 0) as call, tapped({"": net}, {"": net}) as found:
        images = draw(2, 1, 8, 8)
        logits = call(images)
        call(draw(2, 1, 8, 8, seed=1))
    assert torch.equal(found.inputs[""], images)
    assert torch.equal(found.outputs[""], logits)
    assert not net._forward_hooks
    assert not net._forward_pre_hooks
