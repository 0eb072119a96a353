import sys

import pytest

from resnetlab.core.errors import MissingExtraError
from resnetlab.records.run import EpochRecord, Metrics
from resnetlab.train.callbacks import CallbackList, NoCallback, StepStats, TensorBoard, scalars


def epoch(number: int, loss: float) -> EpochRecord:
    metrics = Metrics(loss=loss, error=loss / 10, n=10)
    return EpochRecord(
        epoch=number,
        learning_rate=0.1,
        running_loss=2 * loss,
        train=metrics,
        validation=metrics,
        test=metrics,
        seconds=1.0,
        running_error=0.5,
        images_per_second=1000.0,
    )


def read_back(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_scalars_read_back_by_tensorboard(tmp_path):
    with TensorBoard(tmp_path) as callback:
        callback.on_note("nothing")
        callback.on_step(1, 2, StepStats(loss=1.0, error=0.5, images_per_second=100.0))
        assert list(tmp_path.iterdir()) == []
        callback.on_epoch(epoch(1, 0.5), 2)
        callback.on_epoch(epoch(2, 0.25), 2)
    found = read_back(tmp_path)
    assert found.keys() == dict(scalars(epoch(1, 1.0))).keys()
    assert found["loss/test"] == [(1, 0.5), (2, 0.25)]
    assert found["loss/running"] == [(1, 1.0), (2, 0.5)]
    assert found["images_per_second"] == [(1, 1000.0), (2, 1000.0)]
    assert [value for _, value in found["learning_rate"]] == pytest.approx([0.1, 0.1])


def resumed(folder) -> list[tuple[int, float]]:
    """Three epochs, of which the third is lost with its checkpoint and done again."""
    with TensorBoard(folder) as first:
        for number in (1, 2, 3):
            first.on_epoch(epoch(number, 0.5), 4)
    with TensorBoard(folder) as second:
        for number in (3, 4):
            second.on_epoch(epoch(number, 0.25), 4)
    return read_back(folder)["loss/test"]


def test_resumed_run_shows_no_epoch_twice(tmp_path):
    assert resumed(tmp_path) == [(1, 0.5), (2, 0.5), (3, 0.25), (4, 0.25)]


def test_without_the_purge_an_epoch_would_stand_twice(tmp_path, monkeypatch):
    """The control of the test above."""
    from torch.utils.tensorboard import SummaryWriter

    monkeypatch.setattr("resnetlab.train.callbacks._writer_class", lambda: lambda path, **_: SummaryWriter(path))
    assert [step for step, _ in resumed(tmp_path)] == [1, 2, 3, 3, 4]


def test_what_is_not_known_is_left_out():
    from dataclasses import replace

    bare = replace(epoch(1, 0.5), train=None, validation=None, running_error=None, images_per_second=None)
    assert dict(scalars(bare)) == {"loss/running": 1.0, "loss/test": 0.5, "error/test": 0.05, "learning_rate": 0.1}


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'resnetlab\[track\]'"):
        TensorBoard(tmp_path)


def test_callback_list_tells_each_callback():
    class Told(NoCallback):
        def __init__(self) -> None:
            self.heard: list[object] = []

        def on_note(self, text):
            self.heard.append(text)

        def on_step(self, step, steps, stats=None):
            self.heard.append((step, steps, stats))

        def on_epoch(self, record, epochs):
            self.heard.append(record)

    one, other = Told(), Told()
    both = CallbackList(one, other)
    both.on_note("a")
    both.on_step(1, 2, StepStats(loss=1.0, error=0.5, images_per_second=100.0))
    both.on_epoch(epoch(1, 0.5), 2)
    assert (
        one.heard
        == other.heard
        == ["a", (1, 2, StepStats(loss=1.0, error=0.5, images_per_second=100.0)), epoch(1, 0.5)]
    )
