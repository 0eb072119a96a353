"""Numbers of 16 bits, clipping, accumulation and smoothing, each against the same written out."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from resnetlab.core.errors import DivergedError
from resnetlab.data.config import AugmentConfig
from resnetlab.data.dataset import ImageData
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import Trainer, fit
from resnetlab.train.prepare import make_loader, make_scaler
from tests.train.runs import StopAfter, same_tensors, tiny_net

CPU = torch.device("cpu")
PLAIN = AugmentConfig(crop_padding=0)
BASE = TrainConfig(epochs=4, batch_size=16, augment=PLAIN)
ONE = replace(BASE, epochs=1, max_steps=1, schedule="constant", lr=0.1)


def batch(data: ImageData, config: TrainConfig, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return next(make_loader(data, replace(config, accumulate=1), CPU, seed).shuffled(seed, 1))


class Dtypes(nn.Module):
    """Notes of what type its network's outputs are."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.seen = tiny_net(), set()

    def forward(self, x):
        y = self.net(x)
        self.seen.add(y.dtype)
        return y


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_16_bits_learn_with_weights_of_32(data, precision, dtype):
    net = Dtypes()
    history = fit(net, data, replace(BASE, precision=precision), seed=0)
    assert net.seen == {dtype}
    assert history[-1].train.error < 0.1
    assert all(value.dtype in (torch.float32, torch.int64) for value in net.state_dict().values())


def test_32_bits_stay_32(data):
    """The control of the test above."""
    net = Dtypes()
    fit(net, data, ONE, seed=0)
    assert net.seen == {torch.float32}


def test_loss_scale_survives_an_interruption(tmp_path, data, monkeypatch):
    def scaler(*_):
        return torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)

    monkeypatch.setattr("resnetlab.train.loop.make_scaler", scaler)
    config = replace(BASE, precision="fp16", epochs=2, save_every=1)
    whole, resumed = tiny_net(), tiny_net()
    history = fit(whole, data, config, seed=0, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), data, config, seed=0, out=tmp_path / "cut", callback=StopAfter(7))
    kept = read_checkpoint(tmp_path / "cut" / "last").scaler
    # Six steps of finite gradients: doubled after the fourth, and two towards the next.
    assert (kept["scale"], kept["_growth_tracker"]) == (2048.0, 2)
    again = fit(resumed, data, config, seed=0, out=tmp_path / "cut")
    assert same_tensors(whole, resumed)
    assert [e.test for e in again] == [e.test for e in history]
    ours, theirs = (read_checkpoint(tmp_path / run / "last").scaler for run in ("whole", "cut"))
    assert ours == theirs
    assert ours["scale"] == 8192.0


def test_only_fp16_scales_its_loss():
    assert make_scaler("fp16", CPU).is_enabled()
    assert not make_scaler("bf16", CPU).is_enabled()
    assert make_scaler("bf16", CPU).state_dict() == {}


def test_overflow_of_16_bits_is_named_in_its_own_precision(data):
    net = tiny_net()
    with torch.no_grad():
        net.head.bias += 1e5  # finite, but not in fp16
    config = replace(BASE, precision="fp16")
    trainer = Trainer(net, make_loader(data, config, CPU), config, seed=0)
    images, _ = batch(data, config)
    assert "it began in the output of head;" in str(trainer.diverged(images, 1, float("nan")))
    with pytest.raises(DivergedError, match="at step 1: it began in the output of head;"):
        fit(net, data, config, seed=0)


@pytest.mark.parametrize("limit", [0.01, 1e6])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_scales_the_whole_gradient_to_the_limit(data, limit, precision):
    config = replace(ONE, clip_norm=limit, momentum=0.0, nesterov=False, weight_decay=0.0, precision=precision)
    net = tiny_net()
    by_hand = copy.deepcopy(net).train().to(memory_format=torch.channels_last)
    images, labels = batch(data, config)
    with torch.autocast("cpu", dtype=torch.float16, enabled=precision == "fp16"):
        loss = F.cross_entropy(by_hand(images), labels)
    (65536 * loss).backward()
    gradients = [p.grad / 65536 for p in by_hand.parameters()]
    norm = torch.stack([g.double().square().sum() for g in gradients]).sum().sqrt().item()
    assert 0.01 < norm < 1e6
    fit(net, data, config, seed=0)
    for ours, theirs, gradient in zip(net.parameters(), by_hand.parameters(), gradients, strict=True):
        assert_close(ours, theirs - 0.1 * min(1, limit / norm) * gradient, rtol=1e-5, atol=1e-7)


def test_micro_batches_of_a_net_without_batch_norm_equal_one_batch(data):
    nets = [tiny_net(norm="group") for _ in range(4)]
    config = replace(BASE, epochs=2)
    errors = [
        fit(net, data, replace(config, accumulate=parts), seed=0)[0].running_error
        for net, parts in zip(nets, (1, 2, 4, 8), strict=True)
    ]
    assert errors == errors[:1] * 4
    for net in nets[1:]:
        for ours, theirs in zip(net.parameters(), nets[0].parameters(), strict=True):
            assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_micro_batches_of_batch_norm_have_statistics_of_their_own(data):
    """The control of the test above."""
    whole, parts = tiny_net(), tiny_net()
    fit(whole, data, replace(ONE), seed=0)
    fit(parts, data, replace(ONE, accumulate=4), seed=0)
    assert (whole.head.weight - parts.head.weight).abs().max() > 1e-3


class Constant(nn.Module):
    """Logits (2, 0, 0) for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([2.0, 0.0, 0.0]))

    def forward(self, x):
        return self.logits.expand(len(x), 3)


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_smoothing_is_applied_once_with_mixup_too(data, mixup):
    """Over all classes evenly, the mean log-probability of (2, 0, 0) is 2/3 - log(e² + 2), whatever is mixed."""
    config = replace(ONE, label_smoothing=0.3, batch_size=96, augment=replace(PLAIN, mixup=mixup))
    loss = fit(Constant(), data, config, seed=0)[0].running_loss
    log_sum = torch.logsumexp(torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64), 0).item()
    # A third of the labels has each class, and mixing keeps their sum: the target's mean is 1/3 for each.
    assert loss == pytest.approx(log_sum - 2 / 3, rel=1e-6)
    one_class = replace(data, train=replace(data.train, labels=torch.zeros(96, dtype=torch.int64)))
    loss = fit(Constant(), one_class, config, seed=0)[0].running_loss
    assert loss == pytest.approx(log_sum - 2 * (0.7 + 0.3 / 3), rel=1e-6)
