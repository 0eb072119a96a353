import copy
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from resnetlab.core.errors import CheckpointError, ConfigError, DivergedError
from resnetlab.core.serialize import from_plain
from resnetlab.data.config import AugmentConfig
from resnetlab.data.loader import Loader
from resnetlab.models.zoo import create_model
from resnetlab.records.run import EpochRecord, rank_epochs
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.config import TrainConfig
from resnetlab.train.evaluate import evaluate, evaluate_batches
from resnetlab.train.loop import Trainer, fit
from resnetlab.train.prepare import make_loader, pick_device
from resnetlab.train.state import TrainingState, restore_model
from tests.conftest import make_data
from tests.train.runs import Notes, StopAfter, same_tensors, tiny_net, without_time

SHORT = TrainConfig(epochs=4, batch_size=16)


class WithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = tiny_net()
        self.dropout = nn.Dropout(0.3)

    def forward(self, x):
        return self.net(self.dropout(x))


def test_first_step_equals_sgd_written_out(data):
    """One step of Nesterov momentum with weight decay, by hand."""
    config = TrainConfig(epochs=1, batch_size=96, lr=0.1, schedule="constant", weight_decay=0.01, channels_last=False)
    net = tiny_net()
    before = copy.deepcopy(net)
    loader = make_loader(data, config, torch.device("cpu"))
    images, labels = next(loader.shuffled(0, 1))
    loss = F.cross_entropy(before.train()(images), labels)
    loss.backward()
    trainer = Trainer(net, loader, config, seed=0)
    trainer.train_epoch()
    assert_close(trainer.state.losses, loss.detach()[None].double())
    for (name, parameter), old in zip(net.named_parameters(), before.parameters(), strict=True):
        gradient = old.grad + (0.01 * old if old.dim() > 1 else 0)
        # The momentum buffer starts as the gradient g, and Nesterov's step is g + 0.9 · g.
        assert_close(parameter, old - 0.1 * 1.9 * gradient, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_count_loss_and_wrong_answers_of_all_their_micro_batches(data, dtype):
    state = Trainer(tiny_net(), make_loader(data, SHORT, torch.device("cpu")), SHORT, seed=0).state
    draw, expected = torch.Generator().manual_seed(0), (0.0, 0)
    for labels in (torch.randint(0, 3, (8,), generator=draw), torch.rand(8, 3, generator=draw)):
        logits = torch.randn(8, 3, generator=draw).to(dtype).requires_grad_()
        state.count(2, F.cross_entropy(logits.float(), labels), logits, labels)
        right = labels if labels.dim() == 1 else labels.argmax(1)
        loss = F.cross_entropy(logits.detach().float(), labels).double()
        expected = (expected[0] + loss, expected[1] + (logits.argmax(1) != right).sum())
    assert (state.losses[2], state.wrong[2]) == expected
    assert (state.losses.count_nonzero(), state.wrong.count_nonzero()) == (1, 1)


def test_data_of_another_class_are_refused_with_how_to_make_them():
    class Dataset:
        def __len__(self) -> int:
            return 8

    with pytest.raises(
        ConfigError, match=r"Dataset is no set of images: give a Dataset with a length whose items are \(image, label\)"
    ):
        fit(tiny_net(), Dataset(), TrainConfig(epochs=1), seed=0)


def test_label_smoothing_enters_the_training_loss_and_not_the_metrics(data):
    config = TrainConfig(epochs=1, batch_size=96, label_smoothing=0.5, lr=1e-9)
    loader = make_loader(data, config, torch.device("cpu"))
    net = tiny_net().train()
    images, labels = next(loader.shuffled(0, 1))
    history = fit(tiny_net(), data, config, seed=0)
    assert history[0].running_loss == pytest.approx(F.cross_entropy(net(images), labels, label_smoothing=0.5).item())
    assert history[0].train.loss != pytest.approx(history[0].running_loss)


@pytest.mark.parametrize("config", [SHORT, TrainConfig(epochs=4, batch_size=16, optimizer="adamw", lr=3e-3)])
def test_training_learns(data, config):
    # The classes of these images are rows, which a crop would shift into one another.
    history = fit(tiny_net(), data, replace(config, augment=AugmentConfig(crop_padding=0)), seed=0)
    assert history[-1].train.error < 0.05
    assert history[-1].train.loss < history[0].train.loss


def test_same_seed_gives_equal_bits_and_another_seed_does_not(data):
    nets = [tiny_net() for _ in range(3)]
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
    "sgd": (SHORT, tiny_net),
    "adamw": (TrainConfig(epochs=4, batch_size=16, optimizer="adamw", lr=3e-3), tiny_net),
    "contiguous": (TrainConfig(epochs=4, batch_size=16, channels_last=False), tiny_net),
    "dropout": (SHORT, WithDropout),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """Runs that nothing interrupts: folder, network and history by case, each trained once."""

    @cache
    def train(case: str) -> tuple[Path, nn.Module, list[EpochRecord]]:
        config, make = CASES[case]
        folder, net = tmp_path_factory.mktemp("whole"), make()
        return folder, net, fit(net, data, config, seed=0, out=folder)

    return train


@pytest.mark.parametrize("step", [1, 6, 7, 12, 15, 18, 23])
@pytest.mark.parametrize("case", CASES)
def test_interrupted_run_resumes_to_equal_bits(tmp_path, data, whole, case, step):
    config, make = CASES[case]
    folder, undisturbed, expected = whole(case)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), data, config, seed=0, out=tmp_path / "cut", callback=StopAfter(step))
    resumed = make()
    history = fit(resumed, data, config, seed=0, out=tmp_path / "cut")
    assert same_tensors(resumed, undisturbed)
    assert without_time(history) == without_time(expected)
    assert without_time(read_metrics(tmp_path / "cut" / "metrics.jsonl")) == without_time(expected)
    for which in ("last", "best"):
        ours, theirs = read_checkpoint(tmp_path / "cut" / which), read_checkpoint(folder / which)
        assert all(torch.equal(value, theirs.model[name]) for name, value in ours.model.items())
        assert ours.training.keys() == theirs.training.keys()
        assert all(torch.equal(value, theirs.training[name]) for name, value in ours.training.items())


def test_resume_without_the_optimizer_state_is_not_exact(tmp_path, data, whole, monkeypatch):
    """The control of the test above: it would see a difference."""
    _, undisturbed, _ = whole("sgd")
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), data, SHORT, seed=0, out=tmp_path, callback=StopAfter(12))
    monkeypatch.setattr("resnetlab.train.state.restore_optimizer", lambda *_: None)
    resumed = tiny_net()
    fit(resumed, data, SHORT, seed=0, out=tmp_path)
    assert not same_tensors(resumed, undisturbed)


def test_damaged_last_falls_back_to_the_checkpoint_before_and_still_ends_in_equal_bits(tmp_path, data, whole):
    _, undisturbed, _ = whole("sgd")
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), data, SHORT, seed=0, out=tmp_path, callback=StopAfter(20))
    weights = tmp_path / "last" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    resumed, told = tiny_net(), Notes()
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
            fit(tiny_net(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
    history = fit(tiny_net(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    assert read_metrics(tmp_path / "metrics.jsonl") == history


def test_exploding_loss_stops_with_its_step_and_keeps_the_checkpoint_before(tmp_path, data):
    fit(tiny_net(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    good = read_checkpoint(tmp_path / "last")

    class Poison(NoCallback):
        """Makes a weight infinite behind the second step of the second epoch."""

        def __init__(self, net: nn.Module) -> None:
            self.net = net

        def on_step(self, step: int, steps: int, stats) -> None:
            if step == 8:
                with torch.no_grad():
                    self.net.head.weight[0, 0] = float("inf")

    net = tiny_net()
    with pytest.raises(DivergedError, match=r"became nan at step 9|became inf at step 9"):
        fit(net, data, TrainConfig(epochs=3, batch_size=16), seed=0, out=tmp_path, callback=Poison(net))
    for which in ("last", "best"):
        kept = read_checkpoint(tmp_path / which)
        assert len(kept.history) == 1
        assert all(torch.equal(value, good.model[name]) for name, value in kept.model.items())


WORSE = TrainConfig(epochs=5, batch_size=16, lr=0.02, schedule="constant")


def make_misleading():
    """Validation has wrong labels, so under ``WORSE`` it is best in an early epoch, whatever the processor rounds."""
    data = make_data(validation=24)
    return replace(data, validation=replace(data.validation, labels=(data.validation.labels + 1) % 3))


def explode(net, at: int):
    """Weights that are not finite from step ``at`` on: the loss of that step is the first such."""

    class Explode(NoCallback):
        steps = 0

        def on_step(self, step: int, steps: int, stats) -> None:
            self.steps = step
            if step == at - 1:
                net.head.weight.data.fill_(float("nan"))

    return Explode()


def test_where_a_step_is_not_waited_for_the_statistics_show_a_loss_that_is_not_finite(tmp_path, data, monkeypatch):
    """As on a cuda device: the statistics come from it twice a second, here after every step."""
    config = replace(SHORT, batch_size=4)
    for every, seen in ((0.0, 3), (1e9, 24)):
        monkeypatch.setattr("resnetlab.train.callbacks.EVERY", every)
        net = tiny_net()
        callback = explode(net, at=3)
        trainer = Trainer(net, make_loader(data, config, torch.device("cpu")), config, seed=0, callback=callback)
        trainer.checks_at_once = False
        with pytest.raises(DivergedError, match="the loss became nan at step 3;"):
            trainer.fit()
        # Without statistics only the end of the epoch shows it.
        assert callback.steps == seen


def test_validation_chooses_each_epoch_and_test_reports_the_last_and_the_best(tmp_path):
    """Both networks are evaluated once more by hand."""
    data, config = make_misleading(), WORSE
    history = fit(tiny_net(), data, config, seed=0, out=tmp_path)
    best = rank_epochs(history)[0]
    assert best.epoch < 5
    assert [e.test is not None for e in history] == [e.epoch in (best.epoch, 5) for e in history]
    for which, epoch in (("best", best), ("last", history[-1])):
        net, checkpoint = tiny_net(), read_checkpoint(tmp_path / which)
        assert checkpoint.history[-1].epoch == epoch.epoch
        restore_model(net, checkpoint.model, checkpoint)
        for split in ("validation", "test"):
            found, expected = evaluate(net, data, split), getattr(epoch, split)
            assert (found.error, found.n) == (expected.error, expected.n)
            assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert read_metrics(tmp_path / "metrics.jsonl") == history
    # A run that has ended evaluates the same again, and one without validation trains to the same bits.
    assert without_time(fit(tiny_net(), data, config, seed=0, out=tmp_path)) == without_time(history)
    plain = fit(tiny_net(), replace(data, validation=None), config, seed=0)
    assert [(e.running_loss, e.train) for e in plain] == [(e.running_loss, e.train) for e in history]
    assert (plain[4].test, plain[best.epoch - 1].test) == (history[4].test, best.test)


def test_without_validation_test_is_evaluated_each_epoch_and_the_last_epoch_is_the_best(tmp_path, data):
    history = fit(tiny_net(), data, SHORT, seed=0, out=tmp_path)
    assert all(e.test is not None and e.validation is None for e in history)
    last, best = (read_checkpoint(tmp_path / which) for which in ("last", "best"))
    assert best.history == last.history == history
    assert all(torch.equal(value, last.model[name]) for name, value in best.model.items())
    with pytest.raises(ConfigError, match="early_stop=2 needs validation images"):
        fit(tiny_net(), data, replace(SHORT, early_stop=2), seed=0)


@pytest.mark.parametrize("choose", [True, False])
def test_a_set_without_test_reports_validation_which_chooses_or_does_not(tmp_path, choose):
    data = replace(make_misleading(), test=None)
    history = fit(tiny_net(), data, WORSE, seed=0, out=tmp_path, choose=choose)
    assert all(e.validation.n == 24 and e.test is None and e.reported_split == "validation" for e in history)
    assert rank_epochs(history)[0].epoch < 5
    assert read_checkpoint(tmp_path / "best").history[-1].epoch == (rank_epochs(history)[0].epoch if choose else 5)


def state_of(net: nn.Module, data, config: TrainConfig = SHORT) -> TrainingState:
    return Trainer(net, make_loader(data, config, torch.device("cpu")), config, seed=0).state


def test_checkpoint_of_another_network_is_refused(tmp_path, data):
    fit(tiny_net(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "last")
    with pytest.raises(CheckpointError, match="another network"):
        state_of(create_model("cifar_resnet14", in_chans=1), data).restore(checkpoint)
    other = replace(checkpoint, training={"optimizer/none/momentum_buffer": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="this network lacks"):
        state_of(tiny_net(), data).restore(other)


def test_checkpoint_of_another_kind_of_run_is_refused(tmp_path, data):
    fit(tiny_net(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "last")
    with pytest.raises(CheckpointError, match="made without ema"):
        state_of(tiny_net(), data, replace(SHORT, ema=0.9)).restore(checkpoint)
    with pytest.raises(CheckpointError, match="does not know"):
        state_of(tiny_net(), data).restore(replace(checkpoint, training={"future/x": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="of another length"):
        state_of(tiny_net(), data).restore(replace(checkpoint, step=3))


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
    fit(tiny_net(), data, TrainConfig(epochs=1, batch_size=16), seed=0, out=tmp_path)
    suffixes = sorted(path.suffix for path in (tmp_path / "last").iterdir())
    assert suffixes == [".json", ".json", ".safetensors", ".safetensors"]
    json.loads((tmp_path / "last" / "state.json").read_text())


def test_evaluate_equals_sums_by_hand_and_puts_the_mode_back(data):
    net = tiny_net().train()
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
    net = tiny_net()
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
    told = Notes()
    fit(tiny_net(), data, TrainConfig(epochs=1, batch_size=1000), seed=0, callback=told)
    assert told.notes == ["batch_size=1000 is more than all 96 training images: one batch"]


def test_dropout_depends_on_the_seed_of_the_run_alone(data):
    losses = []
    for draw in range(2):
        torch.manual_seed(draw)
        losses.append(fit(WithDropout(), data, TrainConfig(epochs=1, batch_size=32), seed=1)[0].running_loss)
    assert losses[0] == losses[1]


def test_device_that_is_not_there_is_refused():
    assert pick_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match="no CUDA device"):
            pick_device("cuda")
