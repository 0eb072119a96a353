"""What is measured while a network is trained: when, and that nothing but a resumed trace depends on it."""

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from resnetlab.core.errors import DivergedError
from resnetlab.data.config import AugmentConfig
from resnetlab.records.gradients import GradientMoment, moment
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.checkpoint import pack, read_checkpoint
from resnetlab.train.config import TrainConfig
from resnetlab.train.gradients import Trace, block_gradients, measure_all, relative_changes, weights_by_block
from resnetlab.train.loop import fit
from resnetlab.train.moments import neighbours
from resnetlab.train.state import TrainingState
from tests.train.runs import DYNAMO, StopAfter, tiny_net

BASE = TrainConfig(epochs=2, batch_size=16, save_every=4, augment=AugmentConfig(crop_padding=1))
SETTINGS = {
    "plain": (BASE, {}),
    "average": (replace(BASE, ema=0.9), {}),
    "frozen": (replace(BASE, freeze="stages.0"), {}),
    "segments": (replace(BASE, checkpoint_blocks=1), {}),
    "parts": (replace(BASE, accumulate=2, precision="bf16"), {}),
    "random": (replace(BASE, optimizer="adamw", lr=1e-3), {"dropout": 0.2, "stochastic_depth": 0.5}),
}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    return torch.randn(12, 1, 8, 8, generator=draw), torch.arange(12) % 3


def gradients() -> Trace:
    return Trace(measure=lambda net, step: moment(step, block_gradients(net, *batch())))


def everything() -> Trace:
    """All that can be measured at a moment."""
    images, labels = batch()
    near = neighbours(images, 0)

    return Trace(measure=lambda net, step: measure_all(net, images, labels, near, 0, step)[1], changes=True)


def counter(net: nn.Module, step: int) -> GradientMoment:
    return GradientMoment(step=step, first=1.0, last=1.0, growth=0.0)


def outcome(out, config: TrainConfig, options, data, trace: Trace | None) -> dict[str, object]:
    """All that a run comes to: every tensor that it keeps and every figure that is no time."""
    history = fit(tiny_net(**options), data, config, seed=0, out=out, trace=trace)
    kept = read_checkpoint(out / "last")
    tensors = kept.model | {f"training/{name}": value for name, value in kept.training.items()}
    figures = [(e.running_loss, e.running_error, e.train, e.test) for e in history]
    return {"figures": figures} | {name: value.tolist() for name, value in tensors.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_traced_run_has_the_bits_of_one_without(tmp_path, data, name):
    trace = everything()
    traced = outcome(tmp_path / "traced", *SETTINGS[name], data, trace)
    assert traced == outcome(tmp_path / "not", *SETTINGS[name], data, None)
    assert [one.step for one in trace.moments] == [1, 2, 4, 8]
    assert all(one.first and one.last and one.growth is not None for one in trace.moments)
    assert all(one.correlation and one.agreement and one.rank and one.change for one in trace.moments)


def test_a_measure_that_moves_the_statistics_would_be_seen(tmp_path, data):
    """The control of the test above."""

    def careless(net: nn.Module, step: int) -> GradientMoment:
        net(batch()[0])
        return counter(net, step)

    traced = outcome(tmp_path / "traced", BASE, {}, data, Trace(measure=careless))
    assert traced != outcome(tmp_path / "not", BASE, {}, data, None)


@pytest.mark.filterwarnings(DYNAMO)
def test_compiled_net_is_measured_as_it_is_and_trained_to_the_same_bits(tmp_path, data, monkeypatch):
    """With micro-batches: a graph for the trace's batch of another size would be taken for theirs too."""
    compile_net, sizes = nn.Module.compile, []

    def backend(graph, inputs):
        sizes.append([tuple(value.shape) for value in inputs if isinstance(value, torch.Tensor) and value.dim() == 4])
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda net, **_: compile_net(net, backend=backend))
    config = replace(BASE, epochs=1, accumulate=2, compile=True)
    found, graphs = [], []
    for number, trace in enumerate((None, gradients())):
        torch._dynamo.reset()
        sizes.clear()
        found.append(outcome(tmp_path / str(number), config, {}, data, trace))
        graphs.append(list(sizes))
    assert found[0] == found[1]
    assert graphs[0] == graphs[1] != []
    torch._dynamo.reset()


@pytest.mark.parametrize("step", [1, 2, 8])
def test_moment_is_that_of_a_run_which_ended_there(data, step):
    """At a constant rate a run of so many steps is the beginning of a longer one."""
    config = replace(BASE, schedule="constant", augment=AugmentConfig(crop_padding=0))
    trace, short = gradients(), tiny_net()
    fit(tiny_net(), data, config, seed=0, trace=trace)
    fit(short, data, replace(config, max_steps=step), seed=0)
    (found,) = [one for one in trace.moments if one.step == step]
    assert found == moment(step, block_gradients(short, *batch()))


def test_moments_are_of_the_network_that_is_kept(data):
    """With a moving average that is the average."""
    trace, net = gradients(), tiny_net()
    fit(net, data, replace(BASE, ema=0.9, max_steps=8), seed=0, trace=trace)
    assert trace.moments[-1] == moment(8, block_gradients(net, *batch()))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_change_is_that_of_the_step_which_training_made(data, ema):
    """Of the weights that are trained: those of the average e follow by e + 9/10 (w - e) after the first step."""
    trace, net, start = everything(), tiny_net(), tiny_net()
    fit(net, data, replace(BASE, ema=ema, max_steps=1), seed=0, trace=trace)
    whole, blocks = relative_changes(weights_by_block(start), weights_by_block(net))
    share = 0.9 if ema else 1.0
    assert trace.moments[0].change == pytest.approx(whole / share, rel=1e-4)
    assert trace.moments[0].largest_change == pytest.approx(max(blocks.values()) / share, rel=1e-4)


@pytest.mark.parametrize(
    ("config", "steps"), [(BASE, 12), (replace(BASE, max_steps=7), 7), (replace(BASE, epochs=1), 6)]
)
def test_trace_knows_how_many_steps_the_run_had(data, config, steps):
    trace = Trace(measure=counter)
    fit(tiny_net(), data, config, seed=0, trace=trace)
    assert trace.steps == steps
    assert [one.step for one in trace.moments] == [step for step in (1, 2, 4, 8) if step <= steps]


@pytest.mark.parametrize("cut", [1, 3, 5, 8, 11])
def test_resumed_run_has_the_whole_trace_to_the_bit(tmp_path, data, cut):
    whole, resumed = everything(), everything()
    fit(tiny_net(), data, BASE, seed=0, trace=whole)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), data, BASE, seed=0, out=tmp_path, callback=StopAfter(cut), trace=everything())
    fit(tiny_net(), data, BASE, seed=0, out=tmp_path, trace=resumed)
    assert (resumed.moments, resumed.steps) == (whole.moments, 12)
    assert read_checkpoint(tmp_path / "last").moments == whole.moments


def test_resume_that_forgets_the_trace_would_be_seen(tmp_path, data, monkeypatch):
    """The control of the test above."""
    restore = TrainingState.restore
    monkeypatch.setattr(TrainingState, "restore", lambda self, kept: restore(self, replace(kept, moments=[])))
    resumed = Trace(measure=counter)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), data, BASE, seed=0, out=tmp_path, callback=StopAfter(5), trace=Trace(measure=counter))
    fit(tiny_net(), data, BASE, seed=0, out=tmp_path, trace=resumed)
    assert [one.step for one in resumed.moments] == [8]


def test_checkpoint_from_before_there_was_a_trace_is_gone_on_from(tmp_path, data, monkeypatch):

    def old(checkpoint):
        files = pack(checkpoint)
        return files | {"state.json": files["state.json"].replace(b'"moments": [], ', b"")}

    monkeypatch.setattr("resnetlab.train.checkpoint_manager.pack", old)
    fit(tiny_net(), data, replace(BASE, epochs=1), seed=0, out=tmp_path)
    assert b"moments" not in (tmp_path / "last" / "state.json").read_bytes()
    trace = Trace(measure=counter)
    fit(tiny_net(), data, BASE, seed=0, out=tmp_path, trace=trace)
    assert [one.step for one in trace.moments] == [8]


@pytest.mark.parametrize("kept", [True, False])
def test_diverged_run_keeps_what_was_seen_behind_its_checkpoint(tmp_path, data, kept):
    class Break(NoCallback):
        def __init__(self, net: nn.Module) -> None:
            self.net = net

        def on_step(self, step: int, steps: int, stats) -> None:
            if step == 9:
                with torch.no_grad():
                    self.net.head.weight.fill_(float("nan"))

    trace, net = Trace(measure=counter), tiny_net()
    config = replace(BASE, save_every=None)
    with pytest.raises(DivergedError):
        fit(net, data, config, seed=0, out=tmp_path if kept else None, callback=Break(net), trace=trace)
    assert [one.step for one in trace.moments] == [1, 2, 4, 8]


def test_time_of_measuring_is_not_that_of_training(data):
    def slow(net: nn.Module, step: int) -> GradientMoment:
        time.sleep(0.4)
        return counter(net, step)

    (epoch,) = fit(tiny_net(), data, replace(BASE, epochs=1), seed=0, trace=Trace(measure=slow))
    assert epoch.images_per_second > 96 / 1.2
