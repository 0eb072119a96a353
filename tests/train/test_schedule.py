"""Schedules in steps and the cautious start, as rates and in whole runs."""

from dataclasses import replace

import pytest

from resnetlab.core.errors import ConfigError
from resnetlab.data.config import AugmentConfig
from resnetlab.train import loop
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import fit
from resnetlab.train.optim import learning_rate
from tests.train.runs import same_tensors, tiny_net
from tests.train.test_optim import EPOCHS, SCHEDULERS, STEPS, ours, torchs

BASE = TrainConfig(epochs=4, batch_size=16, augment=AugmentConfig(crop_padding=0))  # 6 steps an epoch


class Rates(NoCallback):
    """Notes every step's rate; cuts the run off behind one."""

    def __init__(self, monkeypatch, cut: int | None = None) -> None:
        self.rates: list[float] = []
        self.steps: list[tuple[int, int]] = []
        self.cut = cut
        set_rate = loop.set_rate

        def note(optimizer, rate):
            self.rates.append(rate)
            set_rate(optimizer, rate)

        monkeypatch.setattr(loop, "set_rate", note)

    def on_step(self, step: int, steps: int, stats) -> None:
        self.steps.append((step, steps))
        if step == self.cut:
            raise KeyboardInterrupt


def test_milestones_in_steps_equal_torch():
    expected = torchs(lambda o: SCHEDULERS.MultiStepLR(o, milestones=[5, 30, 31], gamma=0.1))
    assert ours(schedule="step", milestone_steps=(5, 30, 31)) == pytest.approx(expected)


def test_warmup_in_steps_equals_torch():
    def make(optimizer):
        rise = SCHEDULERS.LinearLR(optimizer, start_factor=1 / 5, total_iters=4)
        fall = SCHEDULERS.CosineAnnealingLR(optimizer, T_max=EPOCHS * STEPS - 5)
        return SCHEDULERS.SequentialLR(optimizer, [rise, fall], milestones=[5])

    assert ours(schedule="cosine", warmup_steps=5) == pytest.approx(torchs(make))


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_schedule_ends_with_max_steps_as_torch_ends_with_its_steps(schedule):
    def make(optimizer):
        if schedule == "cosine":
            return SCHEDULERS.CosineAnnealingLR(optimizer, T_max=40)
        return SCHEDULERS.OneCycleLR(optimizer, max_lr=0.3, total_steps=EPOCHS * STEPS, cycle_momentum=False)

    if schedule == "cosine":
        assert ours(schedule=schedule, max_steps=40)[:40] == pytest.approx(torchs(make)[:40])
    # max_steps beyond the epochs changes nothing.
    assert ours(schedule=schedule, max_steps=1000) == ours(schedule=schedule)
    end = learning_rate(TrainConfig(epochs=EPOCHS, lr=0.3, max_steps=40, schedule="one-cycle"), 39, STEPS)
    assert end == pytest.approx(0.3 / 250_000)


@pytest.mark.parametrize("cut", [7, 8])
def test_run_of_max_steps_ends_within_an_epoch_and_resumes(tmp_path, data, monkeypatch, cut):
    config = replace(BASE, max_steps=9, schedule="cosine", save_every=1)
    callback, whole, resumed = Rates(monkeypatch), tiny_net(), tiny_net()
    history = fit(whole, data, config, seed=0, out=tmp_path / "whole", callback=callback)
    assert callback.steps == [(step, 9) for step in range(1, 10)]
    expected = torchs(lambda o: SCHEDULERS.CosineAnnealingLR(o, T_max=9))[:9]
    assert callback.rates == pytest.approx([rate * BASE.lr / 0.3 for rate in expected])
    assert [e.epoch for e in history] == [1, 2]
    assert history[1].train is not None
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), data, config, seed=0, out=tmp_path / "cut", callback=Rates(monkeypatch, cut))
    again = fit(resumed, data, config, seed=0, out=tmp_path / "cut")
    assert same_tensors(whole, resumed)
    assert [(e.running_loss, e.running_error, e.test) for e in again] == [
        (e.running_loss, e.running_error, e.test) for e in history
    ]
    # A run that has ended does no further step.
    assert fit(tiny_net(), data, config, seed=0, out=tmp_path / "cut", callback=Rates(monkeypatch, 1)) == again


CAUTIOUS = replace(BASE, schedule="constant", warmup_until_error=0.5, lr=0.05)


@pytest.mark.parametrize("window", [2, 50])
def test_cautious_start_takes_a_tenth_until_the_running_error_falls(tmp_path, data, monkeypatch, window):
    monkeypatch.setattr(loop, "WARM_WINDOW", window)
    wrong: list[float] = []
    update = loop.Trainer.update_warmup

    def spy(trainer, step):
        wrong.append(trainer.state.wrong[trainer.state.step - 1].item() / 16)
        update(trainer, step)

    monkeypatch.setattr(loop.Trainer, "update_warmup", spy)
    whole, callback = tiny_net(), Rates(monkeypatch)
    fit(whole, data, CAUTIOUS, seed=0, out=tmp_path / "whole", callback=callback)
    # An epoch has 6 steps, and is a window of its own where one of 50 does not fit.
    size, often = min(window, 6), replace(CAUTIOUS, save_every=1)
    ends = range(size, 25, size)
    since = next(end for end in ends if sum(wrong[end - size : end]) / size < 0.5)
    assert 2 <= since < 24
    assert callback.rates == pytest.approx([0.005] * since + [0.05] * (24 - since))
    assert read_checkpoint(tmp_path / "whole" / "last").warm_since == since
    for cut in (since, since + 2):
        folder, resumed = tmp_path / f"cut {cut}", tiny_net()
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_net(), data, often, seed=0, out=folder, callback=Rates(monkeypatch, cut))
        fit(resumed, data, CAUTIOUS, seed=0, out=folder)
        assert same_tensors(resumed, whole)
        assert read_checkpoint(folder / "last").warm_since == since


def test_cautious_start_stays_where_the_error_does_not_fall(data, monkeypatch):
    callback = Rates(monkeypatch)
    fit(tiny_net(), data, replace(CAUTIOUS, warmup_until_error=1e-9, lr=1e-6), seed=0, callback=callback)
    assert callback.rates == pytest.approx([1e-7] * 24)


@pytest.mark.parametrize(
    "settings",
    [
        {"warmup_steps": 3, "warmup_epochs": 1.0},
        {"warmup_until_error": 0.5},
        {"warmup_until_error": 1.5, "schedule": "constant"},
        {"milestone_steps": (3, 3), "schedule": "step"},
        {"milestones": (1,), "milestone_steps": (3,), "schedule": "step"},
        {"max_steps": 0},
    ],
    ids=str,
)
def test_schedules_that_contradict_themselves_are_refused(settings):
    with pytest.raises(ConfigError, match=r"warm|milestones|milestone_steps|max_steps"):
        TrainConfig(**settings)
