"""Parquet files and the Hub, through the library ``datasets``, its cache in a temporary folder."""

import io
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab.core.errors import ConfigError, DataError, MissingExtraError
from resnetlab.data.config import DecodeConfig
from resnetlab.data.hub import read_hub
from resnetlab.data.sources import load_data
from tests.faults.images import encoded as encode

datasets = pytest.importorskip("datasets")
pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
RNG = np.random.default_rng(0)
NAMES = ["cat", "dog", "$x^{"]
AS_IS = DecodeConfig()
SKIP = DecodeConfig(on_bad="skip")


@pytest.fixture(autouse=True)
def _apart(tmp_path_factory, monkeypatch):
    """Without the network, and away from the user's cache."""

    connect = socket.socket.connect

    def refuse(self, address):
        if self.family != socket.AF_UNIX:  # through which processes of one machine talk
            raise AssertionError("the network was used")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "cache")


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    return encode(Image.fromarray(pixels), form, **({"quality": 30} if form == "JPEG" else {}))


def images(n: int, side: int = 8) -> list[np.ndarray]:
    return [RNG.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(n)]


def table(cells, labels, *, struct=False):
    """A data set; ``cells`` are bytes or cells. Built of Arrow itself, since the library refuses damaged images."""
    cells = [cell if isinstance(cell, dict | None) else {"bytes": cell, "path": "a.png"} for cell in cells]
    raw = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    kinds = {"img": raw if struct else datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    schema = datasets.Features(kinds).arrow_schema
    return datasets.Dataset(pa.table({"img": cells, "label": labels}, schema=schema))


TRAIN, TEST = images(12), images(6)
LABELS, FEWER = [0, 1, 2] * 4, [0, 1, 2] * 2


def good(form="PNG", **more):
    return {
        "train": table([encoded(image, form) for image in TRAIN], LABELS, **more),
        "test": table([encoded(image, form) for image in TEST], FEWER, **more),
    }


def write(folder: Path, tables, name="{}.parquet") -> Path:
    for split, rows in tables.items():
        path = folder / name.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows.data.table, path)
    return folder


def read(folder, decode=AS_IS, seed=0):
    return load_data(f"parquet:{folder}", seed, decode)


@pytest.mark.parametrize("struct", [False, True])
def test_lossless_images_are_those_that_were_written(tmp_path, struct, capfd):
    data = read(write(tmp_path, good(struct=struct)))
    assert np.array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), np.stack(TRAIN))
    assert np.array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), np.stack(TEST))
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == (LABELS, FEWER)
    assert data.classes == tuple(NAMES)
    assert (data.train.encoding, data.fingerprint["encoding"]) == ("lossless", "lossless")
    assert data.notes == ("images from column img, labels from column label",)
    assert capfd.readouterr() == ("", "")


def test_jpeg_images_are_those_of_pillow_and_called_so(tmp_path):
    data = read(write(tmp_path, good("JPEG")))
    expected = [np.asarray(Image.open(io.BytesIO(encoded(image, "JPEG")))) for image in TRAIN]
    assert np.array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert data.fingerprint["encoding"] == "jpeg"


def test_mixed_encodings_are_called_mixed(tmp_path):
    tables = good()
    tables["train"] = table([encoded(p, "PNG" if i else "JPEG") for i, p in enumerate(TRAIN)], LABELS)
    assert read(write(tmp_path, tables)).train.encoding == "mixed"


def test_grey_and_palette_images_become_rgb(tmp_path):
    grey = Image.fromarray(TRAIN[0][..., 0])
    stream = io.BytesIO()
    Image.fromarray(TRAIN[1]).quantize(8).save(stream, "PNG")
    tables = good()
    cells = [encoded(np.asarray(grey)), stream.getvalue(), *(encoded(p) for p in TRAIN[2:])]
    tables["train"] = table(cells, LABELS)
    images = read(write(tmp_path, tables)).train.images
    assert np.array_equal(images[0].numpy(), np.repeat(TRAIN[0][None, ..., 0], 3, axis=0))
    palette = np.asarray(Image.open(io.BytesIO(stream.getvalue())).convert("RGB"))
    assert np.array_equal(images[1].permute(1, 2, 0).numpy(), palette)


LAYOUTS = {
    "{}.parquet": ("train", "test"),
    "{}-00000-of-00001.parquet": ("train", "validation"),
    "data/{}-00000-of-00001.parquet": ("train", "test"),
    "{}/0000.parquet": ("train", "valid"),
    "{}_2.parquet": ("training", "val"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_finds_its_splits(tmp_path, layout):
    train, test = LAYOUTS[layout]
    tables = good()
    data = read(write(tmp_path, {train: tables["train"], test: tables["test"]}, layout))
    assert (len(data.train), len(data.reported)) == (12, 6)
    assert data.reported_split == ("test" if test == "test" else "validation")
    assert (f"validation is {test}" in data.notes) == (test not in ("validation", "test"))


def test_shards_are_read_in_the_order_of_their_names(tmp_path):
    for number in range(3):
        part = {"train": table([encoded(p) for p in TRAIN[4 * number :][:4]], LABELS[4 * number :][:4])}
        write(tmp_path, part, f"{{}}-0000{number}-of-00003.parquet")
    write(tmp_path, {"test": good()["test"]})
    assert np.array_equal(read(tmp_path).train.images.permute(0, 2, 3, 1).numpy(), np.stack(TRAIN))


@pytest.mark.parametrize("single", [True, False])
def test_one_split_is_split_by_class_and_seed(tmp_path, single):
    write(tmp_path, {"whole" if single else "train": good()["train"]})
    place = tmp_path / "whole.parquet" if single else tmp_path
    data = read(place)
    assert (data.train.labels.bincount().tolist(), data.test.labels.bincount().tolist()) == ([3] * 3, [1] * 3)
    assert "split by split_seed=0" in data.notes[1]
    whole = torch.cat([data.train.images, data.test.images]).flatten(1)
    assert {row.numpy().tobytes() for row in whole} == {p.transpose(2, 0, 1).tobytes() for p in TRAIN}
    seeds = [read(place, seed=seed).fingerprint["sha256"] for seed in range(8)]
    assert len(set(seeds)) > 4
    assert read(place).fingerprint["sha256"] == seeds[0]


def test_changed_file_is_read_anew(tmp_path):
    first = read(write(tmp_path, good())).fingerprint["sha256"]
    tables = good()
    tables["train"] = table([encoded(p) for p in TRAIN[::-1]], LABELS)
    assert read(write(tmp_path, tables)).fingerprint["sha256"] != first


BAD = {
    "no image": b"not an image",
    "nothing": {"bytes": None, "path": None},
    "none at all": None,
    "empty": b"",
    "cut": encoded(images(1, 64)[0])[:60],
    "file that is none": {"bytes": None, "path": "missing.png"},
    "endless file": {"bytes": None, "path": "/dev/zero"},
}


@pytest.mark.parametrize("fault", BAD)
def test_unreadable_image_is_an_error_or_left_out(tmp_path, fault):
    tables = good()
    cells = [encoded(p) for p in TRAIN]
    cells[5] = cells[7] = BAD[fault]
    tables["train"] = table(cells, LABELS)
    write(tmp_path, tables)
    with pytest.raises(
        DataError, match=r"(?s)2 of 18 images cannot be read.*row 5 of train.*: .*; .*row 7 of train.*: "
    ):
        read(tmp_path)
    data = read(tmp_path, SKIP)
    kept = [number for number in range(12) if number not in (5, 7)]
    assert np.array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), np.stack([TRAIN[i] for i in kept]))
    assert data.train.labels.tolist() == [LABELS[i] for i in kept]
    assert data.notes[1].startswith("2 of 18 images cannot be read and are left out: ")
    assert "row 5 of train" in data.notes[1]


def test_set_without_one_readable_image_is_refused(tmp_path):
    write(tmp_path, {"train": table([b"x"] * 4, [0, 1, 2, 1]), "test": good()["test"]})
    with pytest.raises(DataError, match="0 training"):
        load_data(f"parquet:{tmp_path}", decode=SKIP)


def test_images_named_by_their_file_are_read_beside_the_table(tmp_path):
    for number, image in enumerate(TRAIN):
        (tmp_path / f"{number}.png").write_bytes(encoded(image))
    tables = good()
    tables["train"] = table([{"bytes": None, "path": f"{number}.png"} for number in range(12)], LABELS)
    data = read(write(tmp_path, tables))
    assert np.array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), np.stack(TRAIN))


def test_damaged_files_are_refused_by_name(tmp_path):
    whole = (write(tmp_path, good()) / "train.parquet").read_bytes()
    for content in (b"", b"PAR1", whole[: len(whole) // 2], whole[: len(whole) // 2] + b"x" * 100 + whole[-200:]):
        (tmp_path / "train.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"train\.parquet"):
            read(tmp_path)


def test_folder_without_parquet_files_says_what_is_looked_for(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="holds no Parquet files; give the folder of"):
            read(place)


def test_hub_gives_what_the_library_gives(monkeypatch):
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name) or datasets.DatasetDict(good()))
    data = load_data("hub:owner/name")
    assert asked == ["owner/name"]
    assert np.array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), np.stack(TRAIN))
    assert data.source == "hub:owner/name"
    assert load_data("hub:owner/name#label").train.labels.tolist() == LABELS
    assert asked == ["owner/name"] * 2


def test_hub_that_cannot_be_reached_is_one_error(monkeypatch):
    """The library's own failure: it is told that there is no network, and finds no copy in its cache."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"cannot fetch owner/name from the Hub .* parquet:DIR") as caught:
        read_hub("owner/name", 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["../secrets", "a/b/c", "/etc", ".", "a b"])
def test_hub_takes_names_alone(place):
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        read_hub(place, 0)


@pytest.mark.parametrize("error", [ImportError("no"), RuntimeError("operator is missing"), OSError("libarrow.so")])
def test_library_that_does_not_load_names_the_extra(monkeypatch, tmp_path, error):
    def fail(name):
        raise error

    monkeypatch.setattr("resnetlab.core.errors.import_module", fail)
    for source in (f"parquet:{tmp_path}", "hub:owner/name"):
        with pytest.raises(MissingExtraError, match=r"pip install 'resnetlab\[hub\]'"):
            load_data(source)


def test_settings_of_the_library_are_as_before(tmp_path):
    datasets.enable_progress_bars()
    before = datasets.logging.get_verbosity()
    read(write(tmp_path, good()))
    assert not datasets.are_progress_bars_disabled()
    assert datasets.logging.get_verbosity() == before
