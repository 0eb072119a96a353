"""What is sent of a run and of a source comes out as it went in, and nothing leads out of its folder."""

import numpy as np
import pytest

from resnetlab.core.errors import DataError
from resnetlab.core.files import replace_folder
from resnetlab.study import shipping
from resnetlab.study.shipping import files_digest, pack_run, pack_source, unpack_run, unpack_source


def run_folder(folder):
    for name, content in (("last", b"3"), ("best", b"2"), ("top/epoch-0002", b"2"), ("top/epoch-0001", b"1")):
        replace_folder(folder / name, {"model.safetensors": content, "state.json": b"{}"})
    (folder / "recipe.yaml").write_bytes(b"model: x")
    (folder / "metrics.jsonl").write_bytes(b"")
    (folder / ".lock").write_bytes(b"1 on here")
    return folder


def test_run_comes_out_as_it_went_in_with_its_newest_checkpoint(tmp_path):
    packed = pack_run(run_folder(tmp_path / "here"))
    weights = {name.removesuffix("/model.safetensors"): packed[name] for name in packed if name.endswith("tensors")}
    assert weights == {"last": b"3", "best": b"2", "top/epoch-0001": b"1", "top/epoch-0002": b"2"}
    assert {name for name in packed if "/" not in name} == {"recipe.yaml", "metrics.jsonl"}
    unpack_run(packed, tmp_path / "there")
    assert pack_run(tmp_path / "there") == packed


def test_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    replace_folder(run_folder(tmp_path) / "last", {"model.safetensors": b"4", "state.json": b"{}"})
    (tmp_path / "last" / "model.safetensors").write_bytes(b"5")
    assert pack_run(tmp_path)["last/model.safetensors"] == b"3"


def test_best_epochs_that_are_no_longer_among_them_go(tmp_path):
    packed = pack_run(run_folder(tmp_path / "here"))
    unpack_run(packed, tmp_path / "there")
    left = {name: content for name, content in packed.items() if "epoch-0001" not in name}
    unpack_run(left, tmp_path / "there")
    assert pack_run(tmp_path / "there") == left


def test_record_is_written_when_all_else_is(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(shipping, "atomic_write", lambda path, _: written.append(path.name))
    monkeypatch.setattr(shipping, "replace_folder", lambda path, _: written.append(path.name))
    unpack_run({"record.json": b"", "last/a": b"", "best/a": b"", "metrics.jsonl": b""}, tmp_path)
    assert written == ["best", "last", "metrics.jsonl", "record.json"]


@pytest.mark.parametrize("name", ["../out", "/out", "last/../../out", ""])
def test_name_that_leads_out_is_refused(tmp_path, name):
    for unpack in (unpack_source, unpack_run):
        with pytest.raises(DataError, match="leads out of its folder"):
            unpack({name: b"content"}, tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_source_is_a_file_or_a_folder_or_the_best_epoch_of_a_run(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    assert list(pack_source(tmp_path / "one.npy")) == ["one.npy"]
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "a.jpg").write_bytes(b"a")
    packed = pack_source(tmp_path / "photos")
    assert packed == {"photos/cat/a.jpg": b"a"}
    unpack_source(packed, tmp_path / "there")
    assert files_digest(pack_source(tmp_path / "there" / "photos")) == files_digest(packed)
    packed = pack_source(run_folder(tmp_path / "run"))
    assert {name.rpartition("/")[0] for name in packed} == {"run/best"}


def test_source_that_is_too_large_is_not_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "MOST_SHIPPED", 10)
    (tmp_path / "file").write_bytes(bytes(10))
    assert pack_source(tmp_path / "file") == {"file": bytes(10)}
    (tmp_path / "file").write_bytes(bytes(11))
    assert pack_source(tmp_path / "file") is None


def test_digest_tells_names_and_contents_apart():
    digests = {files_digest(files) for files in ({"a": b"bc"}, {"ab": b"c"}, {"a": b"b", "c": b""}, {"a": b"b"})}
    assert len(digests) == 4
