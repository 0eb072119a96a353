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
from tests.conftest import make_data

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
        levels=held.histogram(),
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
