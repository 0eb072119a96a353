import json
from dataclasses import replace

import pytest

from resnetlab.core.errors import DataError
from resnetlab.core.serialize import as_plain, from_plain, read_record, write_record
from resnetlab.data.config import AugmentConfig
from resnetlab.records.run import EpochRecord, Metrics, rank_epochs

EPOCH = EpochRecord(
    epoch=1,
    learning_rate=0.1,
    running_loss=2.0,
    train=Metrics(loss=1.0, error=0.5, n=10),
    test=Metrics(loss=1.5, error=0.6, n=5),
    seconds=3.0,
)


def test_record_round_trip_through_a_file(tmp_path):
    write_record(tmp_path / "epoch.json", EPOCH)
    assert read_record(EpochRecord, tmp_path / "epoch.json") == EPOCH
    assert json.loads((tmp_path / "epoch.json").read_text())["test"]["error"] == 0.6


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 1.5},
        {"seconds": "3"},
        {"epoch": True},
        {"epoch": "one"},
        {"unknown": 1},
        {"test": []},
        {"test": {"loss": 1.0}},
        {"running_error": "0.5"},
    ],
    ids=str,
)
def test_record_with_a_wrong_key_or_type_names_the_file(change):
    with pytest.raises(DataError, match=r"here\.json is not a valid EpochRecord"):
        from_plain(EpochRecord, as_plain(EPOCH) | change, "here.json")


def test_plain_form_of_a_record_is_what_json_gives_back():
    plain = as_plain(AugmentConfig(crop_scale=(0.5, 1.0)))
    assert plain == json.loads(json.dumps(plain))
    assert plain["crop_scale"] == [0.5, 1.0]


def test_epoch_written_before_it_had_its_running_error_still_reads():
    old = as_plain(EPOCH)
    del old["running_error"], old["images_per_second"]
    assert from_plain(EpochRecord, old, "old.json") == EPOCH
    assert from_plain(EpochRecord, old | {"train": None}, "new.json").train is None


def test_epochs_rank_by_one_measure_then_the_other_then_the_earlier():
    def epoch(number: int, error: float, loss: float) -> EpochRecord:
        return replace(EPOCH, epoch=number, validation=Metrics(loss=loss, error=error, n=10))

    history = [epoch(1, 0.2, 0.1), epoch(2, 0.1, 0.9), epoch(3, 0.1, 0.5), epoch(4, 0.1, 0.5)]
    assert [e.epoch for e in rank_epochs(history)] == [3, 4, 2, 1]
    assert [e.epoch for e in rank_epochs(history, by="validation_loss")] == [1, 3, 4, 2]
    assert [e.epoch for e in rank_epochs(history, split=None)] == [4, 3, 2, 1]
