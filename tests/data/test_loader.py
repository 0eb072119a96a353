"""Shares of batches: whatever ranks, micro-batches and first step, the images are those of one whole pass."""

from io import BytesIO

import pytest
import torch
from PIL import Image

from resnetlab.data.augmentation import Augmentation
from resnetlab.data.config import AugmentConfig
from resnetlab.data.dataset import ImageData, Split
from resnetlab.data.encoded import EncodedSplit
from resnetlab.data.loader import Loader
from resnetlab.data.transforms import draw_offsets
from tests.conftest import make_data, moments_of

KINDS = {
    "none": AugmentConfig(crop_padding=0),
    "crop and mirror": AugmentConfig(crop_padding=2, flip=True),
    "resized crop": AugmentConfig(random_resized_crop=True),
    "rand": AugmentConfig(policy="rand"),
    "trivial": AugmentConfig(policy="trivial"),
    "blanks": AugmentConfig(erasing=0.5, cutout=3),
    "mixup": AugmentConfig(mixup=0.5),
    "cutmix": AugmentConfig(cutmix=0.5),
    "both": AugmentConfig(crop_padding=2, flip=True, mixup=0.5, cutmix=0.5, erasing=0.3),
}


def loader(kind: str, **settings) -> Loader:
    data = make_data(train=72)
    augmentation = Augmentation(KINDS[kind], 8, 3, 0.1)
    return Loader(data.train, data.normalisation, 16, augmentation=augmentation, **settings)


def whole(kind: str, **settings) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(loader(kind, **settings).shuffled(3, 2))


def equal(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_pass_from_a_step_on_is_the_tail_of_the_whole_pass(kind):
    steps = whole(kind)
    assert len(steps) == 4
    for start in range(5):
        tail = list(loader(kind).shuffled(3, 2, start=start))
        assert len(tail) == 4 - start
        assert all(equal(a, b) for a, b in zip(tail, steps[start:], strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("ranks", "parts"), [(1, 4), (2, 1), (2, 2), (4, 2)])
def test_shares_and_micro_batches_together_are_the_batch(kind, ranks, parts):
    shares = [whole(kind, rank=rank, ranks=ranks, micro_batches=parts) for rank in range(ranks)]
    assert all(len(share) == 4 * parts for share in shares)
    for step, batch in enumerate(whole(kind)):
        # A micro-batch of all ranks is one piece of the batch.
        pieces = [share[step * parts + part] for part in range(parts) for share in shares]
        assert equal([torch.cat(tensors) for tensors in zip(*pieces, strict=True)], batch)


def test_passes_differ_by_seed_and_epoch():
    """The control of the tests above."""
    first = whole("both")
    for other in (loader("both").shuffled(3, 3), loader("both").shuffled(4, 2)):
        assert not any(equal(a, b) for a, b in zip(first, other, strict=True))


def test_only_some_samples_are_taken_and_varied_as_they_would_be_among_all():
    only = torch.arange(5, 37)
    some = loader("crop and mirror", only=only)
    assert (len(some), some.steps) == (32, 2)
    among = {image.numpy().tobytes() for images, _ in whole("crop and mirror") for image in images}
    found = {image.numpy().tobytes() for images, _ in some.shuffled(3, 2) for image in images}
    # Of 72 samples 64 have a place in the whole pass.
    assert len(found) == 32
    assert len(found & among) >= 24
    plain = torch.cat([labels for _, labels in some.in_order()])
    assert torch.equal(plain, make_data(train=72).train.labels[5:37])


def test_batches_in_order_are_shared_by_turns():
    whole_set = [labels for _, labels in loader("none").in_order()]
    first, second = ([labels for _, labels in loader("none", rank=rank, ranks=2).in_order()] for rank in (0, 1))
    assert [len(labels) for labels in whole_set] == [16, 16, 16, 16, 8]
    assert equal(whole_set[::2], first)
    assert equal(whole_set[1::2], second)


@pytest.mark.parametrize("kind", ["crop and mirror", "trivial", "both"])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_decoded_when_asked_for_give_the_batches_of_those_in_memory(kind, workers):
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (40, 3, 8, 8), generator=draw, dtype=torch.uint8)
    held = Split(images=images, labels=torch.arange(40) % 3)
    files = [png(image) for image in images]
    encoded = EncodedSplit(
        store=files,
        labels=held.labels,
        side=8,
        moments=moments_of(held.images),
        identity="made",
        encoding="lossless",
        workers=workers,
    )
    made = []
    for split in (held, encoded):
        norm = ImageData(source="", train=split, test=split, classes=("a", "b", "c")).normalisation
        for share in ({}, {"rank": 1, "ranks": 2, "micro_batches": 2}):
            batches = Loader(split, norm, 16, augmentation=Augmentation(KINDS[kind], 8, 3), **share)
            made.append(list(batches.shuffled(3, 2, start=1)))
    assert all(equal(a, b) for a, b in zip(made[0] + made[1], made[2] + made[3], strict=True))


def png(image: torch.Tensor) -> bytes:
    stream = BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(stream, "png")
    return stream.getvalue()


def plain(batch_size: int = 10, n: int = 96) -> Loader:
    data = make_data(train=n)
    return Loader(data.train, data.normalisation, batch_size)


def test_order_is_a_function_of_seed_and_epoch():
    def labels(seed: int, epoch: int) -> list[int]:
        return [int(x) for _, y in plain().shuffled(seed, epoch) for x in y]

    assert labels(0, 1) == labels(0, 1)
    assert labels(0, 1) != labels(0, 2)
    assert labels(0, 1) != labels(1, 1)


def test_training_pass_gives_every_sample_at_most_once_and_no_incomplete_batch():
    data = make_data()
    batches = list(plain().shuffled(0, 1))
    assert [len(y) for _, y in batches] == [10] * 9
    normalise = data.normalisation.on(torch.device("cpu"))
    known = {
        row.numpy().tobytes(): int(y) for row, y in zip(normalise(data.train.images), data.train.labels, strict=True)
    }
    seen = [
        (row.contiguous().numpy().tobytes(), int(y))
        for images, ys in batches
        for row, y in zip(images, ys, strict=True)
    ]
    assert len({row for row, _ in seen}) == 90
    assert all(known[row] == label for row, label in seen)


def test_crops_are_those_of_the_padded_images_by_seed_epoch_and_sample():
    data = make_data(train=20)
    augmentation = Augmentation(AugmentConfig(crop_padding=1), side=8, num_classes=3)
    crops = Loader(data.train, data.normalisation, 10, augmentation=augmentation)
    uncut = Loader(data.train, data.normalisation, 10)
    normalise = data.normalisation.on(torch.device("cpu"))
    offsets = draw_offsets(20, 1, seed=3, epoch=2)
    assert set(offsets.flatten().tolist()) == {0, 1, 2}
    order = torch.cat([y for _, y in uncut.shuffled(3, 2)])
    assert torch.equal(torch.cat([y for _, y in crops.shuffled(3, 2)]), order)
    by_hand = set()
    for sample, (row, column) in zip(data.train.images, offsets.tolist(), strict=True):
        padded = torch.zeros(1, 10, 10, dtype=torch.uint8)
        padded[:, 1:9, 1:9] = sample
        by_hand.add(normalise(padded[None, :, row : row + 8, column : column + 8]).numpy().tobytes())
    found = [image[None].contiguous().numpy().tobytes() for images, _ in crops.shuffled(3, 2) for image in images]
    assert set(found) == by_hand
    assert torch.equal(next(crops.in_order())[0], next(uncut.in_order())[0])


def test_evaluation_pass_gives_every_sample_once_in_order():
    data = make_data()
    assert torch.equal(torch.cat([y for _, y in plain().in_order()]), data.train.labels)


def test_a_set_smaller_than_a_batch_is_one_batch():
    small = plain(batch_size=500, n=12)
    assert small.steps == 1
    assert [len(y) for _, y in small.shuffled(0, 1)] == [12]


def test_channels_last_batches_hold_the_same_values():
    data = make_data()
    plain = next(Loader(data.train, data.normalisation, 8).in_order())[0]
    last = next(Loader(data.train, data.normalisation, 8, memory_format=torch.channels_last).in_order())[0]
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)
