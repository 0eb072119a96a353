"""The moving average against the same sum in float64, and where it goes."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from resnetlab.train.callbacks import NoCallback
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.config import TrainConfig
from resnetlab.train.evaluate import evaluate_batches
from resnetlab.train.loop import fit
from resnetlab.train.optim import Ema
from resnetlab.train.prepare import evaluation_loaders
from tests.train.runs import tiny_net

CONFIG = TrainConfig(epochs=3, batch_size=16, ema=0.95)


class Follow(NoCallback):
    """The average written out in float64, and a cut where one is wanted."""

    def __init__(self, net: nn.Module, cut: int | None = None) -> None:
        self.net, self.cut = net, cut
        self.average = {name: value.double() for name, value in net.state_dict().items()}

    def on_step(self, step: int, steps: int, stats) -> None:
        decay = min(0.95, step / (9 + step))
        for name, value in self.net.state_dict().items():
            self.average[name] = decay * self.average[name] + (1 - decay) * value.double()
        if step == self.cut:
            raise KeyboardInterrupt


def test_average_equals_its_sum_in_float64_statistics_too(tmp_path, data):
    net = tiny_net()
    follow = Follow(net)
    history = fit(net, data, CONFIG, seed=0, out=tmp_path, callback=follow)
    kept = read_checkpoint(tmp_path / "last")
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            assert_close(value.double(), follow.average[name], rtol=1e-5, atol=1e-6, msg=name)
        else:
            assert value == 18, name
        assert torch.equal(value, kept.model[name])
    # What was evaluated is the average, and the trained weights are another network.
    loaders = evaluation_loaders(data, CONFIG, torch.device("cpu"))
    assert evaluate_batches(net, loaders["test"]) == history[-1].test
    assert not torch.equal(kept.training["raw/head.weight"], kept.model["head.weight"])


def test_average_resumes_to_equal_bits(tmp_path, data):
    config = replace(CONFIG, save_every=4)
    whole, cut, resumed = tiny_net(), tiny_net(), tiny_net()
    history = fit(whole, data, config, seed=0)
    with pytest.raises(KeyboardInterrupt):
        fit(cut, data, config, seed=0, out=tmp_path, callback=Follow(cut, cut=11))
    assert read_checkpoint(tmp_path / "last").step == 2
    assert [e.test for e in fit(resumed, data, config, seed=0, out=tmp_path)] == [e.test for e in history]
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())
    # A run that has ended gives the average again.
    again = tiny_net()
    fit(again, data, config, seed=0, out=tmp_path)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in again.state_dict().items())


def test_average_of_a_compiled_net_is_not_compiled_and_has_no_gradients():
    net = tiny_net()
    net.compile(backend="eager")
    average = Ema(net, 0.9).net
    assert average._compiled_call_impl is None
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_average_has_the_bits_of_one_tensor_at_a_time():
    net = tiny_net()
    ema = Ema(net, 0.9)
    expected = {name: value.clone() for name, value in ema.net.state_dict().items()}
    draw = torch.Generator().manual_seed(0)
    for step in range(3):
        for value in net.state_dict().values():
            value.copy_(torch.randn(value.shape, generator=draw) * 9)
        ema.update(step)
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                expected[name].lerp_(value, 1 - min(0.9, (1 + step) / (10 + step)))
            else:
                expected[name].copy_(value)
    assert all(torch.equal(value, expected[name]) for name, value in ema.net.state_dict().items())
