import warnings
from typing import get_args

import pytest
import torch

from resnetlab.core.errors import ConfigError
from resnetlab.models.zoo import create_model
from resnetlab.train.config import Optimizer, TrainConfig
from resnetlab.train.optim import clear_gradients, learning_rate, make_optimizer

EPOCHS, STEPS = 7, 11
SCHEDULERS = torch.optim.lr_scheduler


def ours(**settings) -> list[float]:
    config = TrainConfig(epochs=EPOCHS, lr=0.3, **settings)
    return [learning_rate(config, step, STEPS) for step in range(EPOCHS * STEPS)]


def torchs(make) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimizer)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch asks for optimizer.step() before scheduler.step()
        for _ in range(EPOCHS * STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            if len(rates) < EPOCHS * STEPS:
                scheduler.step()
    return rates


def test_one_cycle_equals_torch():
    total = EPOCHS * STEPS
    expected = torchs(lambda o: SCHEDULERS.OneCycleLR(o, max_lr=0.3, total_steps=total, cycle_momentum=False))
    assert ours(schedule="one-cycle") == pytest.approx(expected)


def test_cosine_equals_torch():
    expected = torchs(lambda o: SCHEDULERS.CosineAnnealingLR(o, T_max=EPOCHS * STEPS))
    assert ours(schedule="cosine") == pytest.approx(expected)


def test_cosine_with_warmup_equals_torch():
    def make(optimizer):
        rise = SCHEDULERS.LinearLR(optimizer, start_factor=1 / (2 * STEPS), total_iters=2 * STEPS - 1)
        fall = SCHEDULERS.CosineAnnealingLR(optimizer, T_max=(EPOCHS - 2) * STEPS)
        return SCHEDULERS.SequentialLR(optimizer, [rise, fall], milestones=[2 * STEPS])

    assert ours(schedule="cosine", warmup_epochs=2) == pytest.approx(torchs(make))


def test_step_equals_torch():
    expected = torchs(lambda o: SCHEDULERS.MultiStepLR(o, milestones=[2 * STEPS, 5 * STEPS], gamma=0.2))
    assert ours(schedule="step", milestones=(2, 5), gamma=0.2) == pytest.approx(expected)


def test_constant_with_warmup_rises_then_stays():
    rates = ours(schedule="constant", warmup_epochs=1)
    assert rates[:STEPS] == pytest.approx([0.3 * (i + 1) / STEPS for i in range(STEPS)])
    assert set(rates[STEPS:]) == {0.3}


@pytest.mark.parametrize("warmup", [0, 0.01, 3, 6.9])
def test_one_cycle_peaks_once_at_the_given_rate_for_any_warmup(warmup):
    rates = ours(schedule="one-cycle", warmup_epochs=warmup)
    assert max(rates) == pytest.approx(0.3, rel=0.02)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "constant"])
def test_the_shortest_runs_have_rates_too(schedule, steps, epochs):
    config = TrainConfig(epochs=epochs, schedule=schedule)
    assert all(0 < learning_rate(config, s, steps) <= config.lr for s in range(steps * epochs))


@pytest.mark.parametrize("kind", get_args(Optimizer))
def test_norms_and_biases_do_not_decay(kind):
    net = create_model("cifar_resnet8", shortcut="B")
    optimizer = make_optimizer(net, TrainConfig(optimizer=kind, weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        is_weight = name.endswith("weight") and "norm" not in name
        assert decay[id(parameter)] == (0.1 if is_weight else 0.0), name
    assert len(decay) == len(list(net.parameters()))


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"optimizer": "adam"},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"momentum": 1.0},
        {"momentum": 0.0},
        {"weight_decay": -1.0},
        {"schedule": "cosin"},
        {"warmup_epochs": 8.0},
        {"milestones": (3, 2), "schedule": "step"},
        {"milestones": (2,)},
        {"milestones": (8,), "schedule": "step"},
        {"momentum": 0.5, "optimizer": "adamw"},
        {"gamma": 0.5},
        {"weight_decay": float("inf")},
        {"schedule": "step"},
        {"gamma": 0.0, "schedule": "step", "milestones": (2,)},
        {"label_smoothing": 1.0},
        {"device": "tpu"},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=next(iter(settings)).partition("_")[0]):
        TrainConfig(**settings)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_step_has_the_bits_of_what_torch_chooses_by_itself(kind):
    config = TrainConfig(optimizer=kind, head_lr=0.01)
    nets = [create_model("cifar_resnet8") for _ in range(2)]
    ours, theirs = (make_optimizer(net, config) for net in nets)
    for group in theirs.param_groups:
        group["foreach"] = None
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        for pair in zip(*(net.parameters() for net in nets), strict=True):
            gradient = torch.randn(pair[0].shape, generator=draw)
            pair[0].grad, pair[1].grad = gradient, gradient.clone()
        ours.step()
        theirs.step()
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_gradients_are_cleared_as_torch_clears_them():
    net = create_model("cifar_resnet8")
    optimizer = make_optimizer(net, TrainConfig())
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    clear_gradients(optimizer)
    assert all(parameter.grad is None for parameter in net.parameters())
