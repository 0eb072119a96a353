import pytest
import torch

from resnetlab.train import callbacks as meter
from resnetlab.train.callbacks import Meter


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands where the test puts it."""
    now = [0.0]
    monkeypatch.setattr(meter, "perf_counter", lambda: now[0])
    return now


LOSSES = torch.tensor([4.0, 2.0, 1.0, 3.0, 0.0, 0.0], dtype=torch.float64)
WRONG = torch.tensor([8, 4, 2, 6, 0, 0])


def test_stats_are_the_means_of_the_steps_since_the_last(clock):
    told = Meter(8)
    clock[0] = 1.0
    stats = told.stats(LOSSES, WRONG, 2)
    assert (stats.loss, stats.error, stats.images_per_second) == (3.0, 0.75, 16.0)
    clock[0] = 3.0
    stats = told.stats(LOSSES, WRONG, 4)
    assert (stats.loss, stats.error, stats.images_per_second) == (2.0, 0.5, 8.0)


def test_stats_come_twice_a_second_at_most(clock):
    told = Meter(8)
    clock[0] = 0.49
    assert told.stats(LOSSES, WRONG, 1) is None
    clock[0] = 0.5
    assert told.stats(LOSSES, WRONG, 2).loss == 3.0
    assert told.stats(LOSSES, WRONG, 3) is None


def test_stats_of_a_resumed_epoch_count_what_was_done_since(clock):
    told = Meter(8, done=2)
    clock[0] = 1.0
    stats = told.stats(LOSSES, WRONG, 4)
    assert (stats.loss, stats.error, stats.images_per_second) == (2.0, 0.5, 16.0)


def test_stats_of_a_rank_have_the_error_of_its_share_and_the_speed_of_all(clock):
    told = Meter(16, ranks=2)
    clock[0] = 1.0
    stats = told.stats(LOSSES, WRONG, 2)
    assert (stats.error, stats.images_per_second) == (0.75, 32.0)


class SlowCopy:
    """A copy of a device's values that comes when the test lets it."""

    there = False

    def __init__(self, values):
        self.values = values

    def is_there(self):
        return SlowCopy.there


class OfDevice(torch.Tensor):
    """A tensor that says it is on a device."""

    is_cpu = False


def test_stats_of_a_device_are_read_one_later_and_never_waited_for(clock, monkeypatch):
    monkeypatch.setattr(meter, "HostCopy", SlowCopy)
    losses = LOSSES.as_subclass(OfDevice)
    told = Meter(8)
    for done, there, expected in ((1, True, None), (2, True, 4.0), (3, False, None), (4, True, 1.0)):
        clock[0], SlowCopy.there = clock[0] + 1.0, there
        stats = told.stats(losses, WRONG, done)
        assert (stats and stats.loss) == expected
