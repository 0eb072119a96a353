"""Tar files of WebDataset: what is read of them, in which order, and through a run that is killed."""

import io
import os
import pickle
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.data.config import DecodeConfig
from resnetlab.data.decode import decode
from resnetlab.data.loader import Loader
from resnetlab.data.shards import Members, list_shard
from resnetlab.data.sources import load_data, split_source
from resnetlab.models.zoo import create_model
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import fit
from tests.faults import processes
from tests.faults.images import encoded
from tests.faults.runs import equals, kept

Files = dict[str, bytes]


def image(number: int, kind: str = "JPEG") -> bytes:
    draw = np.random.default_rng(number)
    return encoded(Image.fromarray(draw.integers(0, 256, (20 + number % 7, 24, 3), dtype=np.uint8)), kind)


def some(start: int, count: int, labels=("0", "1", "2")) -> Files:
    """``count`` images with labels in turn."""
    files = {}
    for number in range(start, start + count):
        files |= {f"{number:04d}.jpg": image(number), f"{number:04d}.cls": labels[number % len(labels)].encode()}
    return files


def write(path: Path, files: Files, mode: str = "w", **settings) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, mode, **settings) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "set/train-00000.tar", some(0, 9))
    write(tmp_path / "set/train-00001.tar", some(9, 9))
    write(tmp_path / "set/test-00000.tar", some(18, 6))
    return tmp_path / "set"


def read(source, **settings):
    return load_data(f"shards:{source}", decode=DecodeConfig(image_size=72, **settings))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_images_are_those_of_the_files_in_the_order_of_the_shards(folder, form):
    deep = "a/" * 70
    write(folder / "train-00002.tar", {f"{deep}{name}": content for name, content in some(24, 3).items()}, format=form)
    data = read(folder)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 21, "test": 6}
    assert data.train.labels.tolist() == [0, 1, 2] * 7
    assert data.classes == ("0", "1", "2")
    assert data.train.names[0] == "0000.jpg (train-00000.tar)"
    assert data.train.names[20] == f"{deep}0026.jpg (train-00002.tar)"
    (images,) = data.train.batches([torch.tensor([20, 3, 10])])
    for found, number in zip(images, (26, 3, 10), strict=True):
        assert np.array_equal(found.permute(1, 2, 0), decode(image(number), 72))


def test_folder_patterns_and_brackets_name_the_same_files(folder):
    sums = {
        read(f"{folder}{tail}").fingerprint["sha256"]
        for tail in ("", "/*.tar", "/{train,test}-*.tar", "[train=train*,test=test*]")
    }
    assert len(sums) == 1
    one = read(f"{folder}/train-{{00000..00001}}.tar")
    assert (len(one.train), len(one.test)) == (15, 3)
    assert "a fifth of every class is the test" in one.notes[-1]
    assert len(read(f"{folder}[train=train-00000,test=train-00001]").test) == 9
    with pytest.raises(DataError, match=r"1 of 3 shards are not there: .*train-00002\.tar"):
        read(f"{folder}/train-{{00000..00002}}.tar")
    with pytest.raises(ConfigError, match="test=dev\\* means nothing"):
        read(f"{folder}[train=train*,test=dev*]")
    assert split_source("shards:a/b/train-{0..9}.tar") == ("shards:", "a/b", "/train-{0..9}.tar")
    assert split_source("shards:a/b[train=x*]") == ("shards:", "a/b", "[train=x*]")


def test_labels_are_numbers_with_names_beside_them_or_texts(folder):
    (folder / "classes.txt").write_text("cat\ndog\nowl\nrat\n")
    data = read(folder)
    assert data.classes == ("cat", "dog", "owl", "rat")
    assert data.train.labels.tolist()[:3] == [0, 1, 2]
    for name in ("train", "test"):
        write(folder.parent / f"texts/{name}.tar", some(0, 6, ("owl", "cat")))
    texts = read(folder.parent / "texts")
    assert texts.classes == ("cat", "owl")
    assert texts.train.labels.tolist() == [1, 0] * 3


def test_what_is_no_image_is_passed_over_and_a_lack_of_labels_is_told(folder):
    files = some(0, 6)
    write(folder / "train-00000.tar", files | {"0000.json": b"{}", "0001.seg.png": b"x", ".0000.jpg": b"x"})
    assert "passed over 2 files that are neither images nor labels: 1 .json, 1 .seg.png" in read(folder).notes
    del files["0002.cls"]
    write(folder / "train-00000.tar", files)
    with pytest.raises(DataError, match="1 of the 15 images of train have no label"):
        read(folder)
    write(folder / "test-00000.tar", {name: content for name, content in some(18, 6).items() if "jpg" in name})
    write(folder / "train-00000.tar", some(0, 9))
    assert "test has no labels and is left out" in read(folder).notes


def damaged(folder: Path, kind: str) -> str:
    path = folder / "train-00001.tar"
    content = path.read_bytes()
    if kind == "compressed":
        write(path, some(9, 9), "w:gz")
        return "cannot be read as tar"
    if kind == "cut in a header":
        path.write_bytes(content[: int(list_shard(path).starts[3]) - 300])
        return r"train-00001\.tar cannot be read as tar \(it ends too early\)"
    if kind == "cut in an image":
        path.write_bytes(content[: int(list_shard(path).starts[-1]) + 10])
        return r"train-00001\.tar cannot be read as tar \(unexpected end of data\)"
    if kind == "cut between two":
        path.write_bytes(content[: int(list_shard(path).starts[3]) - 512])
        return "it ends too early"
    if kind == "empty":
        write(path, {})
        return "holds no images"
    if kind == "twice":
        write(path, some(9, 9) | {"0009.png": image(9, "PNG")})
        return "two images 0009"
    path.write_bytes(b"no tar at all" * 99)
    return "cannot be read as tar"


@pytest.mark.parametrize(
    "kind", ["compressed", "cut in a header", "cut in an image", "cut between two", "empty", "twice", "no tar"]
)
def test_damaged_shard_is_told_by_its_name(folder, kind):
    message = damaged(folder, kind)
    with pytest.raises(DataError, match=message):
        read(folder)


def test_broken_bytes_are_read_or_refused(folder):
    path = folder / "train-00001.tar"
    whole, draw, refused = path.read_bytes(), np.random.default_rng(0), 0
    starts = list_shard(path).starts
    for case in range(150):
        content = bytearray(whole)
        # In a header, where most bytes say nothing: name, size, sum, kind.
        place = int(draw.choice(starts)) - 512 + int(draw.choice([draw.integers(0, 100), draw.integers(124, 157)]))
        content[place] ^= 1 << int(draw.integers(0, 8))
        if case % 3 == 0:
            head = bytes(content[place // 512 * 512 :][:512])
            total = sum(head[:148] + b" " * 8 + head[156:])
            content[place // 512 * 512 + 148 : place // 512 * 512 + 156] = b"%06o\0 " % total
        path.write_bytes(content)
        try:
            shard = list_shard(path)
            assert [len(cell) for cell in Members([shard])] == shard.sizes.tolist()
        except DataError:
            refused += 1
    assert 10 < refused < 140


def test_size_below_zero_is_refused_and_not_followed(folder):
    path = folder / "train-00001.tar"
    content = bytearray(path.read_bytes())
    content[124:136] = (-1024).to_bytes(12, "big", signed=True)
    total = sum(content[:148] + b" " * 8 + content[156:512])
    content[148:156] = b"%06o\0 " % total
    path.write_bytes(content)
    with pytest.raises(DataError, match="has -1024 bytes"):
        list_shard(path)


def test_unreadable_image_is_told_by_its_name_and_skipped(folder):
    write(folder / "train-00001.tar", some(9, 9) | {"0011.jpg": b"no image"})
    with pytest.raises(DataError, match=r"1 of 24 images cannot be read; .*0011\.jpg \(train-00001\.tar\)"):
        read(folder)
    assert len(read(folder, on_bad="skip").train) == 17


def test_members_can_be_sent_to_a_process(folder):
    members = Members([list_shard(folder / "train-00000.tar"), list_shard(folder / "train-00001.tar")])
    again = pickle.loads(pickle.dumps(members))
    assert [again[number] for number in range(18)] == [image(number) for number in range(18)]


@pytest.mark.parametrize("workers", [0, 2])
def test_shares_of_ranks_together_are_the_batches(folder, workers):
    data = read(folder, workers=workers)
    whole = list(Loader(data.train, data.normalisation, 6).shuffled(1, 1))
    shares = [list(Loader(data.train, data.normalisation, 6, rank=rank, ranks=2).shuffled(1, 1)) for rank in (0, 1)]
    for batch, *parts in zip(whole, *shares, strict=True):
        for one, pieces in zip(batch, zip(*parts, strict=True), strict=True):
            assert torch.equal(torch.cat(pieces), one)


class KillAt(NoCallback):
    """Ends the process by SIGKILL behind a step."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_step(self, step: int, steps: int, stats: object) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(out: Path, place: Path, workers: int, kill_at: int | None) -> None:
    net = create_model("cifar_resnet8", in_chans=3, num_classes=3, widths=(4, 8, 16), stem_width=4)
    config = TrainConfig(epochs=3, batch_size=6, save_every=2)
    fit(net, read(place, workers=workers), config, seed=0, out=out, callback=KillAt(kill_at))


def test_run_on_shards_that_is_killed_and_resumed_ends_in_the_same_bits(folder, tmp_path):
    processes.run(train, tmp_path / "whole", folder, 0, None)
    expected = kept(tmp_path / "whole")
    killed = processes.start(train, tmp_path / "killed", folder, 2, 5)
    assert processes.finish(killed) == -signal.SIGKILL
    assert not (tmp_path / "killed/metrics.jsonl").exists() or kept(tmp_path / "killed") != expected
    processes.run(train, tmp_path / "killed", folder, 1, None)
    assert equals(tmp_path / "killed", expected)
