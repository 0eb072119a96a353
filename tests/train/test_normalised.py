"""LARS, normalised SGD and signSGD against their papers' formulas in numpy, and against torch where they coincide."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from resnetlab.core.errors import ConfigError
from resnetlab.models.zoo import create_model
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import fit
from resnetlab.train.normalised import LARS, NormalisedSGD, SignSGD
from resnetlab.train.optim import make_optimizer
from tests.train.runs import StopAfter, same_tensors, tiny_net

KINDS = ("lars", "normalised_sgd", "signsgd")
LR, MOMENTUM, DECAY = 0.3, 0.8, 0.05
RATES = (LR, LR / 2, LR / 4)
SHAPES = ((3, 2, 2, 2), (4, 3), (4,))


def draws(steps=3, size=1.0):
    """Weights, and the gradients of so many steps, in float64."""
    draw = np.random.default_rng(0)
    weights = [draw.normal(size=shape) for shape in SHAPES]
    return weights, [[size * 10.0**step * draw.normal(size=shape) for shape in SHAPES] for step in range(steps)]


def take(make, gradients, weights, rates=RATES, dtype=torch.float64):
    parameters = [torch.nn.Parameter(torch.tensor(weight, dtype=dtype)) for weight in weights]
    optimizer = make(parameters)
    for rate, now in zip(rates, gradients, strict=True):
        for parameter, gradient in zip(parameters, now, strict=True):
            parameter.grad = torch.as_tensor(gradient, dtype=dtype)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return [parameter.detach().numpy() for parameter in parameters]


def lars_by_hand(weights, gradients, adapts):
    weights, speeds = [w.copy() for w in weights], [0 * w for w in weights]
    for rate, now in zip(RATES, gradients, strict=True):
        for k, g in enumerate(now):
            w_norm, g_norm = np.sqrt((weights[k] ** 2).sum()), np.sqrt((g**2).sum())
            local = 0.02 * w_norm / (g_norm + DECAY * w_norm) if adapts else 1.0
            speeds[k] = MOMENTUM * speeds[k] + rate * local * (g + DECAY * weights[k])
            weights[k] = weights[k] - speeds[k]
    return weights


def normalised_by_hand(weights, gradients, nesterov):
    weights, speeds = [w.copy() for w in weights], [0 * w for w in weights]
    for rate, now in zip(RATES, gradients, strict=True):
        for k, g in enumerate(now):
            unit = g / np.sqrt((g**2).sum())
            speeds[k] = MOMENTUM * speeds[k] + unit
            step = unit + MOMENTUM * speeds[k] if nesterov else speeds[k]
            weights[k] = weights[k] - rate * step - rate * DECAY * weights[k]
    return weights


def sign_by_hand(weights, gradients):
    weights, means = [w.copy() for w in weights], [0 * w for w in weights]
    for rate, now in zip(RATES, gradients, strict=True):
        for k, g in enumerate(now):
            means[k] = MOMENTUM * means[k] + (1 - MOMENTUM) * g
            weights[k] = weights[k] - rate * (np.sign(means[k]) + DECAY * weights[k])
    return weights


def close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("adapts", [True, False])
def test_lars_is_algorithm_1_of_you_et_al(adapts):
    weights, gradients = draws()
    ours = take(lambda p: LARS(p, LR, MOMENTUM, DECAY, adapts=adapts), gradients, weights)
    close(ours, lars_by_hand(weights, gradients, adapts))


@pytest.mark.parametrize("nesterov", [True, False])
def test_normalised_sgd_is_its_formula(nesterov):
    weights, gradients = draws()
    ours = take(lambda p: NormalisedSGD(p, LR, MOMENTUM, DECAY, nesterov=nesterov), gradients, weights)
    close(ours, normalised_by_hand(weights, gradients, nesterov))


def test_signsgd_is_signum_of_bernstein_et_al():
    weights, gradients = draws()
    close(take(lambda p: SignSGD(p, LR, MOMENTUM, DECAY), gradients, weights), sign_by_hand(weights, gradients))


def test_without_adaptation_lars_is_torchs_sgd():
    weights, gradients = draws()
    theirs = take(lambda p: torch.optim.SGD(p, LR, MOMENTUM, weight_decay=DECAY), gradients, weights, (LR,) * 3)
    close(take(lambda p: LARS(p, LR, MOMENTUM, DECAY, adapts=False), gradients, weights, (LR,) * 3), theirs)


@pytest.mark.parametrize("nesterov", [True, False])
def test_normalised_sgd_is_torchs_sgd_where_every_gradient_has_norm_one(nesterov):
    weights, gradients = draws()
    units = [[g / np.linalg.norm(g) for g in now] for now in gradients]
    theirs = take(lambda p: torch.optim.SGD(p, LR, MOMENTUM, nesterov=nesterov), units, weights)
    close(take(lambda p: NormalisedSGD(p, LR, MOMENTUM, nesterov=nesterov), units, weights), theirs)


def test_signsgd_without_momentum_moves_every_weight_by_the_rate():
    weights, gradients = draws(steps=1)
    moved = take(lambda p: SignSGD(p, LR, 0.0), gradients, weights, (LR,))
    for before, after, gradient in zip(weights, moved, gradients[0], strict=True):
        np.testing.assert_allclose(before - after, LR * np.sign(gradient), rtol=1e-12)


MAKERS = {
    "lars": lambda p: LARS(p, LR, MOMENTUM),
    "normalised_sgd": lambda p: NormalisedSGD(p, LR, MOMENTUM, DECAY, nesterov=True),
    "signsgd": lambda p: SignSGD(p, LR, MOMENTUM, DECAY),
}


@pytest.mark.parametrize("size", [1000.0, 1e-30, 1e30])
@pytest.mark.parametrize("kind", KINDS)
def test_size_of_the_gradients_does_not_matter(kind, size):
    """In float32, where the squares of 1e-30 are 0 and those of 1e30 infinite."""
    weights, gradients = draws()
    sized = [[size * g for g in now] for now in gradients]
    plain, other = (take(MAKERS[kind], these, weights, dtype=torch.float32) for these in (gradients, sized))
    for one, two in zip(plain, other, strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-6, atol=2e-6)
    sgd, far = (take(lambda p: torch.optim.SGD(p, LR), these, weights) for these in (gradients, sized))
    assert not np.allclose(sgd[0], far[0])


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_move_nothing_and_zero_weights_can_move(kind):
    zeros, ones = [np.zeros(shape) for shape in SHAPES], [np.ones(shape) for shape in SHAPES]
    for weights, gradients in ((zeros, zeros), (ones, zeros)):
        still = take(MAKERS["lars"], [gradients] * 3, weights)
        assert all(map(np.array_equal, weights, still))
        decayed = take(MAKERS[kind], [gradients] * 3, weights)
        assert all(np.isfinite(weight).all() for weight in decayed)
    moved = take(MAKERS[kind], [ones], zeros, (LR,))
    assert all((weight < 0).all() and np.isfinite(weight).all() for weight in moved)


@pytest.mark.parametrize("kind", KINDS)
def test_one_call_for_all_tensors_has_the_steps_of_one_call_each(kind, monkeypatch):
    weights, gradients = draws()
    each = take(MAKERS[kind], gradients, weights)
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False))
    close(take(MAKERS[kind], gradients, weights), each)


def test_parameter_without_a_gradient_stays():
    weights = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    weights[0].grad = torch.ones(2, 2)
    for make in MAKERS.values():
        make(weights).step()
    assert torch.equal(weights[1], torch.ones(2, 2))
    assert not torch.equal(weights[0], torch.ones(2, 2))


def test_recipes_settings_reach_the_optimizer():
    net = create_model("cifar_resnet8")
    settings = {"momentum": 0.7, "weight_decay": 0.1, "lr": 0.2, "nesterov": True}
    for kind, named in zip(KINDS, (LARS, NormalisedSGD, SignSGD), strict=True):
        optimizer = make_optimizer(net, TrainConfig(optimizer=kind, **settings))
        assert type(optimizer) is named
        for group, dims in zip(optimizer.param_groups, ({2, 4}, {1}), strict=True):
            assert {p.dim() for p in group["params"]} == dims
            assert (group["momentum"], group["lr"]) == (0.7, 0.2)
            assert group["weight_decay"] == (0.1 if dims != {1} else 0.0)
            # Norms and biases take plain steps under LARS.
            assert group["adapts"] == (dims != {1})
    assert make_optimizer(net, TrainConfig(optimizer="normalised_sgd", **settings)).param_groups[0]["nesterov"]


def test_momentum_is_that_of_all_but_adamw():
    assert TrainConfig(optimizer="signsgd", momentum=0.0).momentum == 0
    with pytest.raises(ConfigError, match="nesterov"):
        TrainConfig(optimizer="normalised_sgd", momentum=0.0)
    with pytest.raises(ConfigError, match="did you mean 'lars'"):
        TrainConfig(optimizer="lamb")


RUN = TrainConfig(epochs=2, batch_size=16, device="cpu", save_every=1, save_every_seconds=0.0)
SETTINGS = {"lars": {"lr": 0.2}, "normalised_sgd": {"lr": 0.05}, "signsgd": {"lr": 0.001}}


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_run_has_equal_bits(tmp_path, data, kind):
    config = replace(RUN, optimizer=kind, **SETTINGS[kind])
    whole, cut, resumed = tiny_net(), tiny_net(), tiny_net()
    history = fit(whole, data, config, seed=0, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(cut, data, config, seed=0, out=tmp_path / "cut", callback=StopAfter(8))
    again = fit(resumed, data, config, seed=0, out=tmp_path / "cut")
    assert same_tensors(whole, resumed)
    assert [e.train for e in again] == [e.train for e in history]
    assert history[-1].running_loss < history[0].running_loss


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{"precision": "fp16"}, {"clip_norm": 1e-3}], ids=str)
def test_scaled_loss_and_clipping_go_with_them(data, kind, settings):
    history = fit(tiny_net(), data, replace(RUN, optimizer=kind, **SETTINGS[kind], **settings), seed=0)
    assert history[-1].running_loss < history[0].running_loss
