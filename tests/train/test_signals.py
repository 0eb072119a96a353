"""A request to stop is obeyed after the step, which is saved."""

import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch

from resnetlab.core.errors import StoppedError
from resnetlab.models.zoo import create_model
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import fit
from resnetlab.train.signals import StopRequest, stop_on_signals

CONFIG = TrainConfig(epochs=2, batch_size=16)
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]


class Ask(NoCallback):
    def __init__(self, stop: StopRequest, step: int) -> None:
        self.stop, self.step, self.seen = stop, step, 0

    def on_step(self, step: int, steps: int, stats) -> None:
        self.seen = step
        if step == self.step:
            self.stop.signal = signal.SIGTERM


@pytest.mark.parametrize("step", [1, 4, 6, 7, 12])
def test_run_stops_after_the_step_saved_and_resumes_to_equal_bits(tmp_path, data, step):
    nets = [create_model("cifar_resnet8", in_chans=1, num_classes=3) for _ in range(3)]
    history = fit(nets[0], data, CONFIG, seed=0)
    callback = Ask(StopRequest(), step)
    with pytest.raises(StoppedError, match=f"SIGTERM after step {step}; saved in") as stopped:
        fit(nets[1], data, CONFIG, seed=0, out=tmp_path, callback=callback, stop=callback.stop)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert callback.seen == step
    kept = read_checkpoint(tmp_path / "last")
    assert 6 * len(kept.history) + kept.step == step
    again = fit(nets[2], data, CONFIG, seed=0, out=tmp_path)
    assert [replace(e, seconds=0, images_per_second=0) for e in again] == [
        replace(e, seconds=0, images_per_second=0) for e in history
    ]
    theirs = nets[0].state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in nets[2].state_dict().items())


class Raise(NoCallback):
    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def on_step(self, step: int, steps: int, stats) -> None:
        if step == 4:
            signal.raise_signal(self.number)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_saves_the_step_that_was_reached(tmp_path, data, number, request):
    # Neither ignored, as under nohup, nor the end of the tests.
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, lambda *_: None)))
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3)
    with (
        pytest.raises(StoppedError, match=f"{number.name} after step 4; saved in") as stopped,
        stop_on_signals() as stop,
    ):
        fit(net, data, CONFIG, seed=0, out=tmp_path, callback=Raise(number), stop=stop)
    assert stopped.value.exit_code == 128 + number
    assert read_checkpoint(tmp_path / "last").step == 4


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_outside_of_training_ends_it_at_once_whatever_a_library_catches(number, request):
    # Under nohup the tests themselves ignore one of them.
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, signal.SIG_DFL)))
    before, passed = signal.getsignal(number), []

    def load_library() -> None:
        with stop_on_signals():
            try:
                signal.raise_signal(number)
            except Exception:
                passed.append("caught")
            passed.append("went on")

    with pytest.raises(StoppedError, match=f"stopped by {number.name} outside of training") as stopped:
        load_library()
    assert not passed
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before


def test_a_signal_within_training_is_only_noted():
    with stop_on_signals() as stop, stop.deferred():
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


def test_a_hang_up_that_is_ignored_stays_so():
    """As under ``nohup``; the other signals stop the run there too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop, stop.deferred():
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal is None
            signal.raise_signal(signal.SIGTERM)
            assert stop.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_that_no_signal_asked_for_stays_one():
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        raise KeyboardInterrupt


@pytest.mark.parametrize(("kind", "code"), [("Interrupted", 143), ("KeyboardInterrupt", -signal.SIGINT)])
def test_signal_within_exec_keeps_its_exit_code(tmp_path, kind, code):
    """As while a library makes its dataclasses; a plain KeyboardInterrupt is the control."""
    script = (
        "import sys\nfrom resnetlab.core.errors import StoppedError\nfrom resnetlab.train import signals\n"
        f"signals.Interrupted = {'signals.' if kind == 'Interrupted' else ''}{kind}\n"
        "try:\n    with signals.stop_on_signals():\n"
        "        exec('import os, signal\\nos.kill(os.getpid(), signal.SIGTERM)\\nfor _ in range(1000): pass')\n"
        "except StoppedError as error:\n    sys.exit(error.exit_code)\n"
    )
    (tmp_path / "command.py").write_text(script)
    done = subprocess.run([sys.executable, "-m", "command"], capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == code, done.stderr
