import os

import pytest

from tests.faults import images


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_damaged_images_are_read_or_refused(count):
    found = images.fuzz(count, seed=1)
    assert (found["crashes"], found["hung"]) == ([], 0)
    assert found["read"] + found["refused"] == count
    # A fuzzer that breaks nothing, or everything, would test nothing.
    assert min(found["read"], found["refused"]) > count // 20


def test_fuzzing_sees_a_decoder_that_crashes(monkeypatch):
    monkeypatch.setattr(images, "decode", lambda data, *_: {}[data])
    assert len(images.fuzz(5, seed=1)["crashes"]) == 5


@pytest.mark.parametrize("count", [25, pytest.param(200, marks=pytest.mark.slow)])
def test_odd_folders_are_read_right(count):
    found = images.trees(count, seed=1)
    assert (found["crashes"], found["hung"]) == ([], 0)
    assert found["images"] > 20 * count
    assert found["bad"] > count


def test_odd_folders_would_show_a_wrong_class(monkeypatch):
    read = images.load_data

    def swapped(*given):
        data = read(*given)
        data.train.labels[:2] = 1 - data.train.labels[:2]
        return data

    monkeypatch.setattr(images, "load_data", swapped)
    assert len(images.trees(3, seed=1)["crashes"]) == 3


def test_odd_folders_would_show_a_hang(monkeypatch, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(images, "DEADLINE", 0.05)
    monkeypatch.setattr(images, "load_data", lambda *_: (tmp_path / "pipe").read_text())
    assert images.trees(1, seed=1)["hung"] == 1
