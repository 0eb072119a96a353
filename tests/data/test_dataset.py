"""What identifies and standardises a set, splitting it by class, and holding out a validation."""

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab.core.errors import DataError
from resnetlab.core.randomness import generator
from resnetlab.data.dataset import ImageData, Normalisation, Split, hold_out, split_by_class
from resnetlab.data.encoded import EncodedSplit
from tests.conftest import make_data, moments_of
from tests.faults.images import encoded


def test_normalisation_uses_the_training_images_alone():
    data = make_data()
    changed = ImageData(
        source="made",
        train=data.train,
        test=Split(images=data.test.images * 0, labels=data.test.labels),
        classes=data.classes,
    )
    assert changed.normalisation == data.normalisation
    pixels = data.normalisation.on(torch.device("cpu"))(data.train.images)
    assert pixels.mean().item() == pytest.approx(0, abs=1e-6)
    assert pixels.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_normalisation_is_by_channel_and_leaves_a_constant_channel_finite():
    images = torch.stack([torch.full((5, 4, 4), 7), torch.arange(80).reshape(5, 4, 4)], dim=1).to(torch.uint8)
    split = Split(images=images, labels=torch.zeros(5, dtype=torch.int64))
    data = ImageData(source="made", train=split, test=split, classes=("a",))
    pixels = data.normalisation.on(torch.device("cpu"))(images)
    assert not pixels[:, 0].any()
    assert pixels[:, 1].std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_normalisation_changes_no_input():
    data = make_data()
    floats = data.train.images.to(torch.float32)
    before = floats.clone()
    data.normalisation.on(torch.device("cpu"))(floats)
    assert torch.equal(floats, before)


@pytest.mark.parametrize("shape", [(37, 3, 64, 60), (5, 1, 8, 8), (3, 3, 9, 1), (0, 3, 4, 4)], ids=str)
@pytest.mark.parametrize("wanted", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("given", [torch.contiguous_format, torch.channels_last])
def test_normalisation_in_parts_has_the_bits_and_the_layout_of_the_plain_formula(shape, wanted, given):
    images = torch.randint(0, 256, shape, dtype=torch.uint8).contiguous(memory_format=given)
    mean, std = (torch.rand(shape[1]) * 99 + 1 for _ in range(2))
    normalise = Normalisation(mean=tuple(mean.tolist()), std=tuple(std.tolist())).on(torch.device("cpu"), wanted)
    plain = (images.float() - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
    for kind in (images, images.float()):
        found = normalise(kind)
        assert torch.equal(found, plain)
        assert found.is_contiguous(memory_format=wanted)
        assert (
            found.stride()
            == images.clone(memory_format=torch.contiguous_format).contiguous(memory_format=wanted).stride()
        )


def test_fingerprint_sees_one_changed_pixel():
    data, other = make_data(), make_data()
    other.train.images[3, 0, 2, 2] ^= 1
    assert data.fingerprint["sha256"] != other.fingerprint["sha256"]


def test_a_fifth_of_every_class_is_the_test_and_nothing_is_lost():
    labels = np.repeat([0, 1, 5, 2], [10, 3, 2, 1])
    train, test = split_by_class(labels, 0)
    assert sorted([*train, *test]) == list(range(16))
    assert np.bincount(labels[test], minlength=6).tolist() == [2, 1, 0, 0, 0, 1]
    assert (list(train), list(test)) == (sorted(train), sorted(test))


def test_split_is_a_function_of_the_seed_and_of_each_class_alone():
    labels = np.repeat([0, 1], 50)
    first = split_by_class(labels, 0)[1].tolist()
    assert split_by_class(labels, 0)[1].tolist() == first
    assert len({tuple(split_by_class(labels, seed)[1]) for seed in range(5)}) == 5
    more = np.append(labels, [2] * 30)
    assert [number for number in split_by_class(more, 0)[1] if number < 100] == first


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 100])
def test_share_of_the_test_is_rounded_and_never_all_or_none(count):
    train, test = split_by_class(np.zeros(count, dtype=np.int64), 0)
    assert len(test) == (0 if count == 1 else max(1, round(count / 5)))
    assert len(train)


def test_validation_is_a_tenth_of_each_class_of_the_training_images():
    data = make_data(train=90)
    found = hold_out(data, 5)
    assert list(found.splits) == ["train", "validation", "test"]
    assert found.test is data.test
    expected = []
    for label in range(3):
        members = torch.nonzero(data.train.labels == label).flatten().numpy()
        expected += members[generator(5, "validation", label).permutation(30)[:3]].tolist()
    rest = [number for number in range(90) if number not in expected]
    for split, numbers in ((found.validation, sorted(expected)), (found.train, rest)):
        assert torch.equal(split.images, data.train.images[numbers])
        assert torch.equal(split.labels, data.train.labels[numbers])
    assert hold_out(data, 6).fingerprint["sha256"] != found.fingerprint["sha256"]
    assert found.normalisation == ImageData(source="", train=found.train, classes=()).normalisation


def test_classes_of_one_image_keep_it_and_a_validation_of_the_sets_own_is_kept():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).repeat(1, 1, 8, 8)
    few = ImageData(
        source="few",
        train=Split(images=images, labels=torch.tensor([0, 1, 1, 2, 2, 2]), names=tuple("abcdef")),
        test=Split(images=images, labels=torch.zeros(6, dtype=torch.int64)),
        classes=("a", "b", "c"),
    )
    found = hold_out(few, 0)
    assert torch.bincount(found.validation.labels, minlength=3).tolist() == [0, 1, 1]
    assert sorted([*found.train.names, *found.validation.names]) == list("abcdef")
    assert [few.train.names.index(name) for name in found.train.names] == [
        int(image[0, 0, 0]) for image in found.train.images
    ]
    with pytest.raises(DataError, match="has a validation split of its own"):
        hold_out(found, 0)
    lone = ImageData(
        source="lone", train=Split(images=images[:2], labels=torch.tensor([0, 1])), test=few.test, classes=("a", "b")
    )
    with pytest.raises(DataError, match="every class has one training image"):
        hold_out(lone, 0)


def test_encoded_images_are_held_out_as_those_in_memory_are_and_not_copied():
    held = Split(images=make_data(train=60).train.images.repeat(1, 3, 1, 1), labels=torch.arange(60) % 3)
    files = [encoded(Image.fromarray(image.permute(1, 2, 0).numpy()), "PNG") for image in held.images]
    asked = EncodedSplit(
        store=files,
        labels=held.labels,
        side=8,
        moments=moments_of(held.images),
        identity="0" * 64,
        encoding="lossless",
        names=[f"{number}.png" for number in range(60)],
    )
    classes = ("a", "b", "c")
    one, other = (
        hold_out(ImageData(source="made", train=train, test=held, classes=classes), 2) for train in (held, asked)
    )
    for name in ("train", "validation"):
        first, second = one.splits[name], other.splits[name]
        (images,) = second.batches([torch.arange(len(second))])
        assert torch.equal(images, first.images)
        assert torch.equal(second.labels, first.labels)
        assert second.statistics().std == pytest.approx(first.statistics().std, rel=1e-14)
        assert all(second.store[number] is files[int(second.names[number][:-4])] for number in range(len(second)))
    assert one.normalisation.mean == pytest.approx(other.normalisation.mean, rel=1e-14)
    seeds = [hold_out(ImageData(source="", train=asked, test=held, classes=classes), seed) for seed in (2, 2, 3)]
    sums = [data.fingerprint["sha256"] for data in seeds]
    assert sums[0] == sums[1] != sums[2]
    # A view of a view is one of the images themselves.
    again, _ = other.train.divide(torch.tensor([0]))
    assert again.store.values is files
