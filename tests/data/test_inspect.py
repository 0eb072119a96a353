"""Duplicates and constant images in sets where they were put."""

import itertools
from dataclasses import replace

import torch

from resnetlab.data.dataset import ImageData, Split
from resnetlab.data.inspect import inspect_data, pick_samples
from tests.conftest import make_data


def planted() -> ImageData:
    """600 and 300 images: more than a batch of each."""
    data = make_data(train=600, test=300)
    train, test = data.train.images.clone(), data.test.images.clone()
    train[590] = train[3]
    train[599] = train[3]
    test[299] = test[1]
    test[260] = train[3]
    test[7] = train[598]
    train[400] = 9
    test[270] = 0
    return ImageData(
        source="made",
        train=Split(images=train, labels=data.train.labels),
        test=Split(images=test, labels=data.test.labels),
        classes=data.classes,
        notes=("a note",),
    )


def by_hand(one: Split, other: Split | None = None) -> list[tuple[int, int]]:
    """Pairs (earliest, copy) by comparing all with all."""
    pairs = []
    for number, image in enumerate((other or one).images):
        for earlier, candidate in enumerate(one.images):
            if other is None and earlier >= number:
                break
            if torch.equal(candidate, image):
                pairs.append((earlier, number))
                break
    return pairs


def test_duplicates_are_those_of_comparing_all_with_all():
    data = planted()
    found = inspect_data(data)
    for name, pairs, (one, other) in (
        ("train", by_hand(data.train), (data.train, data.train)),
        ("test", by_hand(data.test), (data.test, data.test)),
        ("test in train", by_hand(data.train, data.test), (data.train, data.test)),
    ):
        assert found.duplicates[name].examples == tuple(pairs)
        assert found.duplicates[name].count == len(pairs) > 0
        relabelled = sum(bool(one.labels[a] != other.labels[b]) for a, b in pairs)
        assert found.duplicates[name].relabelled == relabelled
    assert (found.constant["train"].count, found.constant["train"].examples) == (1, (400,))
    assert (found.constant["test"].count, found.constant["test"].examples) == (1, (270,))
    assert (found.notes, found.fingerprint) == (("a note",), data.fingerprint)


def test_one_changed_pixel_makes_no_duplicate_but_a_near_one():
    data = planted()
    data.train.images[590, 0, 7, 7] ^= 1
    data.test.images[7, 0, 0, 0] ^= 1
    data.test.labels[7] = (data.train.labels[598] + 1) % 3
    found = inspect_data(data)
    assert found.duplicates["train"].examples == ((3, 599),)
    assert (598, 7) not in found.duplicates["test in train"].examples
    near = found.near["test in train"]
    assert (598, 7) in near.examples
    assert not {later for _, later in near.examples} & {
        later for _, later in found.duplicates["test in train"].examples
    }
    names = [f"row {int(split.labels[at])}" for split, at in ((data.train, 598), (data.test, 7))]
    assert (f"598 ({names[0]})", f"7 ({names[1]})") in near.conflicts


def test_image_that_is_constant_in_one_channel_alone_is_not_constant():
    images = torch.zeros(3, 2, 4, 4, dtype=torch.uint8)
    images[0, 1] = torch.arange(16).view(4, 4)
    images[1, 1] = 5
    split = Split(images=images, labels=torch.tensor([0, 1, 0]))
    found = inspect_data(ImageData(source="made", train=split, test=split, classes=("a", "b")))
    assert found.constant["train"].examples == (1, 2)


def test_all_splits_are_compared_and_images_called_by_their_names():
    data = planted()
    names = [f"cat/{number}.png" for number in range(600)]
    three = replace(data, train=replace(data.train, names=names), validation=data.test, test=data.train)
    found = inspect_data(three)
    assert list(found.duplicates) == [
        "train", "validation", "test", "validation in train", "test in train", "test in validation"
    ]  # fmt: skip
    assert found.duplicates["train"].names == (("cat/3.png", "cat/590.png"), ("cat/3.png", "cat/599.png"))
    assert found.duplicates["test in train"].count == 600
    assert found.duplicates["test in train"].names == ()
    assert found.constant["train"].names == ("cat/400.png",)
    assert pick_samples(three, 1, 3)[0].names[0] == "cat/0.png"


def test_progress_ends_with_all_images():
    seen = []
    inspect_data(planted(), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (900, 900)
    assert all(a[0] < b[0] for a, b in itertools.pairwise(seen))


def test_samples_are_images_of_their_class_spread_over_it():
    data = planted()
    found = pick_samples(data, 2, 5)
    assert list(found) == [0, 1]
    for number, samples in found.items():
        images = samples.images
        members = data.train.images[data.train.labels == number]
        assert len(images) == 5
        assert torch.equal(images[0], members[0])
        assert torch.equal(images[-1], members[-1])


def test_class_without_images_has_no_samples():
    split = Split(images=torch.zeros(3, 1, 4, 4, dtype=torch.uint8), labels=torch.tensor([0, 2, 2]))
    found = pick_samples(ImageData(source="made", train=split, test=split, classes=("a", "b", "c")), 9, 5)
    assert [tuple(samples.images.shape) for samples in found.values()] == [(1, 1, 4, 4), (0, 1, 4, 4), (2, 1, 4, 4)]
