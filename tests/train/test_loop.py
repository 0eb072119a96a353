import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from resnetlab.core.errors import CheckpointError, ConfigError, DivergedError
from resnetlab.core.serialize import from_plain
from resnetlab.data.config import AugmentConfig
from resnetlab.data.loader import Loader
from resnetlab.models.vgg import VGGConfig
from resnetlab.models.zoo import create_model
from resnetlab.records.run import EpochRecord, Metrics
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.checkpoint_manager import CheckpointManager, best_epoch
from resnetlab.train.config import TrainConfig
from resnetlab.train.evaluate import evaluate, evaluate_batches
from resnetlab.train.loop import begin, fit, train_epoch
from resnetlab.train.prepare import make_loader, make_loaders, pick_device
from resnetlab.train.signals import StopRequest
from resnetlab.train.state import TrainingState, restore_model
from tests.conftest import make_data

SHORT = TrainConfig(epochs=4, batch_size=16)


class StopAfter(NoCallback):
    """Cuts a run off as Ctrl-C would, behind the given step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, steps: int, stats) -> None:
        if step == self.step:
            raise KeyboardInterrupt


class Told(NoCallback):
    """Keeps the notes of a run."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_note(self, text: str) -> None:
        self.notes.append(text)


class WithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = create_model("cifar_resnet8", in_chans=1, num_classes=3)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        return self.net(self.dropout(x))


def model(seed: int = 0) -> nn.Module:
    return create_model("cifar_resnet8", in_chans=1, num_classes=3, seed=seed)


def same_tensors(first: nn.Module, second: nn.Module) -> bool:
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())


def without_time(history: list[EpochRecord]) -> list[tuple]:
    return [(e.epoch, e.learning_rate, e.running_loss, e.train, e.test) for e in history]


def test_first_step_equals_sgd_written_out(data):
    """One step of Nesterov momentum with weight decay, by hand."""
    config = TrainConfig(epochs=1, batch_size=96, lr=0.1, schedule="constant", weight_decay=0.01, channels_last=False)
    net = model()
    before = copy.deepcopy(net)
    loader, _ = make_loaders(data, config, torch.device("cpu"))
    images, labels = next(loader.shuffled(0, 1))
    loss = F.cross_entropy(before.train()(images), labels)
    loss.backward()
    state = begin(net, config, loader)
    checkpoints = CheckpointManager(None, config, state, torch.device("cpu"))
    train_epoch(state, net, loader, config, 0, NoCallback(), StopRequest(), checkpoints)
    assert_close(state.losses, loss.detach()[None].double())
    for (name, parameter), old in zip(net.named_parameters(), before.parameters(), strict=True):
        gradient = old.grad + (0.01 * old if old.dim() > 1 else 0)
        # The momentum buffer starts as the gradient g, and Nesterov's step is g + 0.9 · g.
        assert_close(parameter, old - 0.1 * 1.9 * gradient, msg=name)


def test_label_smoothing_enters_the_training_loss_and_not_the_metrics(data):
    config = TrainConfig(epochs=1, batch_size=96, label_smoothing=0.5, lr=1e-9)
    loader, _ = make_loaders(data, config, torch.device("cpu"))
    net = model().train()
    images, labels = next(loader.shuffled(0, 1))
    history = fit(model(), data, config, seed=0)
    assert history[0].running_loss == pytest.approx(F.cross_entropy(net(images), labels, label_smoothing=0.5).item())
    assert history[0].train.loss != pytest.approx(history[0].running_loss)


@pytest.mark.parametrize("config", [SHORT, TrainConfig(epochs=4, batch_size=16, optimizer="adamw", lr=3e-3)])
def test_training_learns(data, config):
    # The classes of these images are rows, which a crop would shift into one another.
    history = fit(model(), data, replace(config, augment=AugmentConfig(crop_padding=0)), seed=0)
    assert history[-1].train.error < 0.05
    assert history[-1].train.loss < history[0].train.loss


def test_same_seed_gives_equal_bits_and_another_seed_does_not(data):
    nets = [model() for _ in range(3)]
    histories = [fit(net, data, SHORT, seed=seed) for net, seed in zip(nets, (0, 0, 1), strict=True)]
    assert same_tensors(nets[0], nets[1])
    assert without_time(histories[0]) == without_time(histories[1])
    assert not same_tensors(nets[0], nets[2])


def test_twins_see_equal_batches(data):
    seen = {}
    for name in ("cifar_plain8", "cifar_resnet8"):
        net = create_model(name, in_chans=1, num_classes=3)
        batches = seen.setdefault(name, [])
        net.register_forward_pre_hook(
            lambda m, x, batches=batches: batches.append(x[0].clone()) if m.training else None
        )
        fit(net, data, TrainConfig(epochs=2, batch_size=16), seed=3)
    plain, residual = seen.values()
    assert len(plain) == 12
    assert all(torch.equal(a, b) for a, b in zip(plain, residual, strict=True))


def test_global_random_state_is_put_back(data):
    before = torch.random.get_rng_state()
    fit(WithDropout(), data, TrainConfig(epochs=1, batch_size=16), seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def read_metrics(path) -> list[EpochRecord]:
    return [from_plain(EpochRecord, json.loads(line), "metrics.jsonl") for line in path.read_text().splitlines()]


CASES = {
    "sgd": (SHORT, model),
    "adamw": (TrainConfig(epochs=4, batch_size=16, optimizer="adamw", lr=3e-3), model),
    "contiguous": (TrainConfig(epochs=4, batch_size=16, channels_last=False), model),
    "dropout": (SHORT, WithDropout),
}


@pytest.mark.parametrize("step", [1, 6, 7, 12, 15, 18, 23])
@pytest.mark.parametrize("case", CASES)
def test_interrupted_run_resumes_to_equal_bits(tmp_path, data, case, step):
    config, make = CASES[case]
    undisturbed = make()
    expected = fit(undisturbed, data, config, seed=0, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(make(), data, config, seed=0, out=tmp_path / "cut", callback=StopAfter(step))
    resumed = make()
    history = fit(resumed, data, config, seed=0, out=tmp_path / "cut")
    assert same_tensors(resumed, undisturbed)
    assert without_time(history) == without_time(expected)
    assert without_time(read_metrics(tmp_path / "cut" / "metrics.jsonl")) == without_time(expected)
    for which in ("last", "best"):
        ours, theirs = (read_checkpoint(tmp_path / run / which) for run in ("cut", "whole"))
        assert all(torch.equal(value, theirs.model[name]) for name, value in ours.model.items())
        assert ours.training.keys() == theirs.training.keys()
        assert all(torch.equal(value, theirs.training[name]) for name, value in ours.training.items())


def test_resume_without_the_optimizer_state_is_not_exact(tmp_path, data, monkeypatch):
    """The control of the test above: it would see a difference."""
    undisturbed = model()
    fit(undisturbed, data, SHORT, seed=0)
    with pytest.raises(KeyboardInterrupt):
        fit(model(), data, SHORT, seed=0, out=tmp_path, callback=StopAfter(12))
    monkeypatch.setattr("resnetlab.train.state.restore_optimizer", lambda *_: None)
    resumed = model()
    fit(resumed, data, SHORT, seed=0, out=tmp_path)
    assert not same_tensors(resumed, undisturbed)


def test_damaged_last_falls_back_to_the_checkpoint_before_and_still_ends_in_equal_bits(tmp_path, data):
    undisturbed = model()
    fit(undisturbed, data, SHORT, seed=0)
    with pytest.raises(KeyboardInterrupt):
        fit(model(), data, SHORT, seed=0, out=tmp_path, callback=StopAfter(20))
    weights = tmp_path / "last" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    resumed, told = model(), Told()
    assert len(fit(resumed, data, SHORT, seed=0, out=tmp_path, callback=told)) == 4
    assert same_tensors(resumed, undisturbed)
    assert len(told.notes) == 1
    assert "last is damaged" in told.notes[0]


def test_crash_between_checkpoint_and_metrics_leaves_no_line_out(tmp_path, data, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("resnetlab.train.checkpoint_manager.write_metrics", crash)
        with pytest.raises(KeyboardInterrupt):
            fit(model(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
    history = fit(model(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    assert read_metrics(tmp_path / "metrics.jsonl") == history


def test_exploding_loss_stops_with_its_step_and_keeps_the_checkpoint_before(tmp_path, data):
    fit(model(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    good = read_checkpoint(tmp_path / "last")

    class Poison(NoCallback):
        """Makes a weight infinite behind the second step of the second epoch."""

        def __init__(self, net: nn.Module) -> None:
            self.net = net

        def on_step(self, step: int, steps: int, stats) -> None:
            if step == 8:
                with torch.no_grad():
                    self.net.head.weight[0, 0] = float("inf")

    net = model()
    with pytest.raises(DivergedError, match=r"became nan at step 9|became inf at step 9"):
        fit(net, data, TrainConfig(epochs=3, batch_size=16), seed=0, out=tmp_path, callback=Poison(net))
    for which in ("last", "best"):
        kept = read_checkpoint(tmp_path / which)
        assert len(kept.history) == 1
        assert all(torch.equal(value, good.model[name]) for name, value in kept.model.items())


def test_best_is_the_lowest_test_error_then_the_lower_loss_then_the_earlier():
    def epoch(number: int, error: float, loss: float) -> EpochRecord:
        metrics = Metrics(loss=loss, error=error, n=10)
        return EpochRecord(epoch=number, learning_rate=0.1, running_loss=1, train=metrics, test=metrics, seconds=1)

    history = [epoch(1, 0.2, 0.1), epoch(2, 0.1, 0.9), epoch(3, 0.1, 0.5), epoch(4, 0.1, 0.5), epoch(5, 0.3, 0.0)]
    assert best_epoch(history).epoch == 3


def test_best_folder_holds_the_best_epoch(tmp_path, data):
    history = fit(model(), data, TrainConfig(epochs=5, batch_size=16, lr=0.3), seed=0, out=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "best")
    assert checkpoint.history[-1] == best_epoch(history)
    net = model()
    restore_model(net, checkpoint.model, checkpoint)
    _, test = make_loaders(data, SHORT, torch.device("cpu"))
    assert evaluate_batches(net, test).error == best_epoch(history).test.error


def state_of(net: nn.Module, data, config: TrainConfig = SHORT) -> TrainingState:
    return begin(net, config, make_loader(data, config, torch.device("cpu")))


def test_checkpoint_of_another_network_is_refused(tmp_path, data):
    fit(model(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "last")
    with pytest.raises(CheckpointError, match="another network"):
        state_of(create_model("cifar_resnet14", in_chans=1), data).restore(checkpoint)
    other = replace(checkpoint, training={"optimizer/none/momentum_buffer": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="this network lacks"):
        state_of(model(), data).restore(other)


def test_checkpoint_of_another_kind_of_run_is_refused(tmp_path, data):
    fit(model(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "last")
    with pytest.raises(CheckpointError, match="made without ema"):
        state_of(model(), data, replace(SHORT, ema=0.9)).restore(checkpoint)
    with pytest.raises(CheckpointError, match="does not know"):
        state_of(model(), data).restore(replace(checkpoint, training={"future/x": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="of another length"):
        state_of(model(), data).restore(replace(checkpoint, step=3))


def test_folder_that_is_whole_but_no_checkpoint_is_refused(tmp_path):
    from resnetlab.core.files import replace_folder

    for contents in (
        {"model.safetensors": b"x"},
        {"model.safetensors": b"x" * 9, "training.safetensors": b"", "state.json": b"{}"},
    ):
        replace_folder(tmp_path / "last", contents)
        replace_folder(tmp_path / "last", contents)
        with pytest.raises(CheckpointError, match="not a checkpoint"):
            read_checkpoint(tmp_path / "last")


def test_checkpoint_holds_no_pickle(tmp_path, data):
    fit(model(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    suffixes = sorted(path.suffix for path in (tmp_path / "last").iterdir())
    assert suffixes == [".json", ".json", ".safetensors", ".safetensors"]
    json.loads((tmp_path / "last" / "state.json").read_text())


def test_evaluate_equals_sums_by_hand_and_puts_the_mode_back(data):
    net = model().train()
    loader = Loader(data.test, data.normalisation, batch_size=7)
    before = copy.deepcopy(net.state_dict())
    metrics = evaluate_batches(net, loader)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with torch.no_grad():
        logits = net.eval()(data.normalisation.on(torch.device("cpu"))(data.test.images))
    assert metrics.n == 40
    assert metrics.loss == pytest.approx(F.cross_entropy(logits, data.test.labels).item(), rel=1e-5)
    assert metrics.error == pytest.approx((logits.argmax(1) != data.test.labels).float().mean().item())


def test_evaluate_of_a_split_equals_that_of_its_batches(data):
    net = model()
    for which, split in (("train", data.train), ("test", data.test)):
        found = evaluate(net, data, which)
        expected = evaluate_batches(net, Loader(split, data.normalisation, batch_size=16))
        assert (found.error, found.n) == (expected.error, expected.n)
        assert found.loss == pytest.approx(expected.loss, rel=1e-6)


def test_evaluate_counts_a_nan_as_an_error(data):
    class Nan(nn.Module):
        def forward(self, x):
            logits = torch.zeros(len(x), 3)
            logits[:, 0] = float("nan")
            return logits

    assert evaluate_batches(Nan(), Loader(data.test, data.normalisation, batch_size=8)).error == 1


def test_a_batch_larger_than_the_set_is_said_to_be_one_batch(data):
    told = Told()
    fit(model(), data, TrainConfig(epochs=1, batch_size=1000), seed=0, callback=told)
    assert told.notes == ["batch_size=1000 is more than all 96 training images: one batch"]


def test_vgg_with_dropout_trains_and_repeats():
    data = make_data(train=8, test=4, side=32)
    losses = []
    for _ in range(2):
        torch.manual_seed(len(losses))
        net = VGGConfig(depths=(1, 1, 1, 1, 1), in_chans=1, num_classes=3, image_size=32).make()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.fill_(0.01)
        losses.append(fit(net, data, TrainConfig(epochs=1, batch_size=4), seed=1)[0].running_loss)
    assert losses[0] == losses[1]


def test_device_that_is_not_there_is_refused():
    assert pick_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match="no CUDA device"):
            pick_device("cuda")
