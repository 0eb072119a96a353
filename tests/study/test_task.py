"""What a task of Ray does, without Ray: it trains from what it is given, tells of it, and gives the files back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resnetlab.core.files import read_folder
from resnetlab.core.lock import folder_lock
from resnetlab.core.serialize import as_plain
from resnetlab.data.dataset import ImageData
from resnetlab.data.sources import load_data
from resnetlab.study import task
from resnetlab.study.shipping import files_digest, pack_source, unpack_run
from resnetlab.study.task import SCRATCH, Mailbox, Order, do_run, scratch
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import run_recipe
from tests.conftest import make_data


def save(path: Path, data: ImageData) -> None:
    parts = {"train": data.train, "test": data.test}
    arrays = {f"x_{name}": part.images.squeeze(1).numpy() for name, part in parts.items()}
    np.savez(path, **arrays, **{f"y_{name}": part.labels.numpy() for name, part in parts.items()})


@pytest.fixture
def npz(tmp_path) -> Path:
    (tmp_path / "driver").mkdir()
    save(tmp_path / "driver" / "made.npz", make_data())
    return tmp_path / "driver" / "made.npz"


@pytest.fixture(autouse=True)
def _own_scratch(tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr(task, "_HELD", {})


def order_of(npz: Path, **changes) -> Order:
    training = TrainConfig(epochs=3, batch_size=32, device="cpu", save_every_seconds=0, save_every=1)
    recipe = Recipe(model="mlp_resnet8", data=f"npz:{npz}", training=training, validation=False)
    data = load_data(recipe.data)
    order = Order(
        run="one",
        attempt=1,
        recipe=recipe,
        keep="checkpoints",
        source=recipe.data,
        named=data.source,
        sha256=data.fingerprint["sha256"],
        check="full",
        weights_sha256=None,
    )
    return replace(order, **changes)


def do(order: Order, files=None, shipped=None, say=None):
    asked = []

    def fetch(what):
        asked.append(what)
        return (shipped or {}).get(what)

    return do_run(json.dumps(as_plain(order)), files or {}, fetch, say or (lambda *_: None)), asked


def recorded(files) -> dict:
    """The record without clocks."""
    record = json.loads(files["record.json"])
    for epoch in record["history"]:
        epoch |= {"seconds": 0, "images_per_second": None}
    return record | {"seconds": 0}


def test_task_gives_the_record_and_the_bits_of_the_run(tmp_path, npz):
    answer, asked = do(order_of(npz))
    run_recipe(order_of(npz).recipe, tmp_path / "run", page=False)
    expected = {"record.json": (tmp_path / "run" / "record.json").read_bytes()}
    assert recorded(answer.files) == recorded(expected)
    _, files = read_folder(tmp_path / "run" / "last")
    assert answer.files["last/model.safetensors"] == files["model.safetensors"]
    # The data lie where the driver has them.
    assert asked == []
    assert list((tmp_path / "scratch").glob(f"{SCRATCH}*")) == []


def test_data_that_are_not_there_or_others_are_taken_from_the_driver(tmp_path, npz):
    order, sent = order_of(npz), {"data": pack_source(npz)}
    first, _ = do(order)
    save(npz, make_data(seed=1))
    for here in (True, False):
        task._HELD.clear()
        if not here:
            npz.unlink()
        answer, asked = do(order, shipped=sent)
        assert asked == ["data"]
        assert recorded(answer.files) == recorded(first.files)
        task._HELD.clear()
        answer, _ = do(order)
        assert answer.kind == "DataError"
        assert answer.message.endswith("their SHA-256 is another" if here else "nothing lies there")


def test_next_run_of_the_process_reads_no_data(npz):
    order = order_of(npz)
    do(order)
    npz.unlink()
    answer, asked = do(replace(order, recipe=replace(order.recipe, seed=1)))
    assert (answer.kind, asked) == ("", [])


def test_task_that_is_asked_to_stop_gives_its_step_and_the_next_one_resumes_there(monkeypatch, npz):
    monkeypatch.setattr(task, "BEAT", 0.005)
    whole, _ = do(order_of(npz))
    told = []

    def say(run, attempt, news, files):
        told.append((json.loads(news), files))
        return 2 if files else None

    long = order_of(npz)
    stopped, _ = do(long, say=say)
    assert stopped.stopped
    assert "record.json" not in stopped.files
    first = []

    def hear(run, attempt, news, files):
        first.extend(step for step, _ in json.loads(news)["steps"])

    again, _ = do(long, files=stopped.files, say=hear)
    assert recorded(again.files) == recorded(whole.files)
    assert again.files["last/model.safetensors"] == whole.files["last/model.safetensors"]
    assert first[0] > 1


def test_checkpoint_is_told_again_where_the_mailbox_was_lost(tmp_path, monkeypatch, npz):
    monkeypatch.setattr(task, "BEAT", 60.0)
    unpack_run(do(order_of(npz))[0].files, tmp_path / "run")
    told = []

    def say(news, files):
        told.append(files is not None)
        if len(told) == 1:
            raise ConnectionError

    for _ in range(2):
        with task.beating(say, task.News(), tmp_path / "run"):
            pass
    # At the beginning and at the end of a run; what has arrived once is not told twice.
    assert told == [True, True, True, False]


def test_machine_with_another_version_refuses(npz):
    plain = as_plain(order_of(npz, resnetlab="0.0.1")) | {"tells": "what this version does not know"}
    answer = do_run(json.dumps(plain), {}, lambda _: None, lambda *_: None)
    assert answer.kind == "ConfigError"
    assert "and the driver 0.0.1; install the same" in answer.message


def test_weights_are_the_drivers_or_refused(tmp_path, npz):
    run_recipe(order_of(npz).recipe, tmp_path / "run", page=False)
    weights = tmp_path / "run" / "last"
    packed = pack_source(weights)
    order = order_of(npz)
    order = replace(order, recipe=replace(order.recipe, weights=str(weights)), weights_sha256=files_digest(packed))
    here, _ = do(order)
    assert here.kind == ""
    (weights / "state.json").write_text("{}")
    answer, _ = do(order)
    assert answer.kind == "CheckpointError"
    assert "other weights" in answer.message
    weights.rename(tmp_path / "elsewhere")
    sent, asked = do(order, shipped={"weights": packed})
    assert asked == ["weights"]
    assert recorded(sent.files) == recorded(here.files)


def test_scratch_of_a_task_that_was_killed_goes_and_that_of_one_at_work_stays(tmp_path):
    killed, works = (tmp_path / "scratch" / f"{SCRATCH}{name}" for name in ("killed", "works"))
    (killed / "run").mkdir(parents=True)
    with folder_lock(works), scratch() as place:
        (place / "file").write_text("")
        assert works.exists()
        assert not killed.exists()
    assert not place.exists()


def test_mailbox_keeps_the_newest_checkpoint_until_it_is_taken():
    box = Mailbox()
    assert box.beat("a", 2, "first", {"x": b"1"}) is None
    box.beat("a", 2, "second", {"x": b"2"})
    box.beat("a", 2, "third", None)
    # What was taken for lost speaks.
    box.beat("a", 1, "late", {"x": b"0"})
    news, files = box.take(15)
    assert [text for *_, text in news] == ["first", "second", "third", "late"]
    assert files == {"a": (2, {"x": b"2"})}
    assert box.beat("a", 2, "fourth", None) == 15
    assert box.take(None) == ([("a", 2, "fourth")], {})
