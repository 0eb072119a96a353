"""A set written anew: what is in the files, and that the same is read from them."""

import tarfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab.core.errors import ConfigError
from resnetlab.data import npz
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import Split, hold_out
from resnetlab.data.loader import Loader
from resnetlab.data.mapped import MappedSplit
from resnetlab.data.pack import MARGIN, pack
from resnetlab.data.sources import load_data
from resnetlab.data.transforms import ResizedCrop
from tests.faults.images import encoded

SIDE = 80


def picture(number: int, width: int, height: int) -> Image.Image:
    draw = np.random.default_rng(number)
    small = Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def data(tmp_path):
    """Large JPEGs and small PNGs of three classes."""
    for split, count in (("train", 5), ("test", 2)):
        for label, name in enumerate(("ash", "oak tree", "yew")):
            for number in range(count):
                path = tmp_path / "set" / split / name / str(number)
                path.parent.mkdir(parents=True, exist_ok=True)
                large = number % 2
                size = (300, 200) if large else (90, 85)
                content = encoded(picture(10 * label + number, *size), "JPEG" if large else "PNG")
                path.with_suffix(".jpg" if large else ".png").write_bytes(content)
    return load_data(tmp_path / "set", decode=DecodeConfig(image_size=SIDE))


def test_shards_hold_each_image_once_at_its_size(data, tmp_path, monkeypatch):
    monkeypatch.setattr("resnetlab.data.pack.SHARD_BYTES", 1 << 15)
    seen: list[tuple[int, int]] = []
    files = pack(data, "shards", tmp_path / "out", 2, lambda *at: seen.append(at))
    assert seen == [(number, 21) for number in range(1, 22)]
    assert len([path for path in files if path.name.startswith("train-")]) > 1
    read = load_data(f"shards:{tmp_path}/out", decode=DecodeConfig(image_size=SIDE))
    assert read.classes == data.classes == ("ash", "oak tree", "yew")
    for name, split in data.splits.items():
        packed = read.splits[name]
        assert torch.bincount(packed.labels).tolist() == torch.bincount(split.labels).tolist()
        # Mixed: no class comes at the end.
        assert packed.labels.tolist() != sorted(packed.labels.tolist())
        labels = split.labels.tolist()
        originals = {path.read_bytes(): label for path, label in zip(split.store, labels, strict=True)}
        kept = 0
        for content, label in zip(packed.store, packed.labels.tolist(), strict=True):
            with Image.open(BytesIO(content)) as image:
                if image.format == "PNG":
                    assert originals[content] == label
                    kept += 1
                else:
                    assert image.size == (round(1.5 * MARGIN * SIDE), round(MARGIN * SIDE))
        assert kept == sum(content[:4] == b"\x89PNG" for content in originals)
    (pixels,), (wanted,) = (set_.train.batches([torch.arange(15)]) for set_ in (read, data))
    nearest = torch.cdist(pixels.flatten(1).float(), wanted.flatten(1).float()).argmin(1)
    assert sorted(nearest.tolist()) == list(range(15))
    assert torch.equal(data.train.labels[nearest], read.train.labels)


def test_two_packs_of_one_set_are_the_same_bytes(data, tmp_path):
    one, other = (pack(data, "shards", tmp_path / name, workers) for name, workers in (("a", 0), ("b", 3)))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    with tarfile.open(one[-1]) as archive:
        first, second = archive.getnames()[:2]
    assert second == f"{first[:8]}.cls"


@pytest.mark.parametrize("held", [True, False], ids=["held", "mapped"])
def test_arrays_hold_the_pixels_and_are_mapped_where_they_are_large(data, tmp_path, monkeypatch, held):
    assert pack(data, "arrays", tmp_path / "set.npz") == [tmp_path / "set.npz"]
    with np.load(tmp_path / "set.npz") as arrays:
        assert arrays["x_train"].shape == (15, SIDE, SIDE, 3)
    monkeypatch.setattr(npz, "MOST_HELD", (1 << 30) if held else 0)
    read = load_data(f"npz:{tmp_path}/set.npz")
    assert isinstance(read.train, Split if held else MappedSplit)
    assert read.classes == data.classes
    assert read.normalisation == data.normalisation
    plan = [torch.tensor([3, 1, 14]), torch.tensor([7])]
    crop = ResizedCrop(uniforms=torch.rand(15, 4, generator=torch.Generator().manual_seed(0)), scale=(0.2, 1))
    for found, expected in zip(read.train.batches(plan), data.train.batches(plan), strict=True):
        assert torch.equal(found, expected)
        assert held or found.is_contiguous(memory_format=torch.channels_last)
    in_memory = Split(images=next(data.train.batches([torch.arange(15)])), labels=data.train.labels)
    for found, expected in zip(read.train.batches(plan, crop), in_memory.batches(plan, crop), strict=True):
        assert torch.equal(found, expected)


def test_mapped_arrays_train_and_divide_as_those_in_memory(data, tmp_path, monkeypatch):
    pack(data, "arrays", tmp_path / "set.npz")
    held = load_data(f"npz:{tmp_path}/set.npz")
    monkeypatch.setattr(npz, "MOST_HELD", 0)
    mapped = load_data(f"npz:{tmp_path}/set.npz")
    assert mapped.fingerprint == held.fingerprint
    one, other = (hold_out(each, 0) for each in (held, mapped))
    assert one.fingerprint == other.fingerprint
    passes = [list(Loader(each.train, each.normalisation, 4).shuffled(0, 1)) for each in (one, other)]
    assert all(torch.equal(a, b) for pair in zip(*passes, strict=True) for a, b in zip(*pair, strict=True))


def test_what_is_no_place_or_has_no_files_is_refused(data, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        pack(data, "shards", tmp_path / "full")
    with pytest.raises(ConfigError, match=r"a new file, such as .*full\.npz"):
        pack(data, "arrays", tmp_path / "full")
    with pytest.raises(ConfigError, match="digits holds arrays and no image files"):
        pack(load_data("digits"), "shards", tmp_path / "out")
    assert not (tmp_path / "out").exists()
