"""Datasets and DataLoaders of torch as sets of images: what is read, what is refused, and what is said of it."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.data.dataset import ImageData, Split
from resnetlab.data.loader import Loader
from resnetlab.data.torch_datasets import as_image_data, from_datasets, read_item
from tests.conftest import make_data

PIXELS = torch.arange(3 * 4 * 4, dtype=torch.uint8).view(3, 4, 4)
ARRAY = PIXELS.permute(1, 2, 0).numpy()


class Items(Dataset):
    """Items as they are given, with the attributes of torchvision's sets."""

    def __init__(self, items, **attributes):
        self.items, self.read = list(items), 0
        vars(self).update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        self.read += 1
        return self.items[number]


def from_data(split: Split) -> TensorDataset:
    return TensorDataset(split.images, split.labels)


@pytest.fixture(scope="module")
def made() -> ImageData:
    return make_data(train=40, test=20)


def images_of(split) -> torch.Tensor:
    return torch.cat(list(split.batches(torch.arange(len(split)).split(7))))


@pytest.mark.parametrize(
    "image",
    [
        *(PIXELS, PIXELS.numpy(), ARRAY, ARRAY[:, ::-1][:, ::-1], Image.fromarray(ARRAY)),
        Image.fromarray(ARRAY).convert("RGBA"),
    ],
)
def test_images_of_every_kind_are_uint8_maps(image):
    read, label = read_item([(image, 3)], 0)
    assert torch.equal(read, PIXELS)
    assert label == 3


def test_grey_images_and_floats():
    grey = PIXELS[0]
    for image in (grey.numpy(), Image.fromarray(grey.numpy()), grey[None]):
        assert torch.equal(read_item([(image, 0)], 0)[0], grey[None])
    floats = PIXELS.double() / 255
    assert torch.equal(read_item([(floats, 0)], 0)[0], floats.float())


@pytest.mark.parametrize(
    "label", [2, np.int64(2), np.array([2]), torch.tensor(2), torch.tensor([2], dtype=torch.uint8)]
)
@pytest.mark.parametrize("keys", [None, ("image", "label"), ("img", "label"), ("pixel_values", "labels")])
def test_labels_and_items_of_every_kind(label, keys):
    item = (PIXELS, label) if keys is None else dict(zip(keys, (PIXELS, label), strict=True))
    assert read_item([item], 0)[1] == 2


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (PIXELS, "it must be a pair"),
        ({"pixels": PIXELS, "label": 0}, "it must be a pair"),
        ((PIXELS, 0, 1), "it must be a pair"),
        ((PIXELS.long(), 0), r"tensor \(3, 4, 4\) of int64"),
        ((PIXELS[:, :2], 0), r"tensor \(3, 2, 4\) of uint8; .*square.*Resize"),
        ((Image.new("I;16", (4, 4)), 0), "of 8 bits"),
        (("a.png", 0), "is a str; it must be a tensor"),
        ((PIXELS, -1), "-1; it must be a whole number from 0"),
        ((PIXELS, 0.5), "0.5; it must be a whole number"),
        ((PIXELS, torch.tensor([0, 1])), r"of shape \(2,\).*argmax"),
        ((PIXELS, "cat"), "'cat'; it must be a whole number"),
    ],
)
def test_items_of_another_form_are_refused(item, message):
    with pytest.raises(DataError, match=message):
        from_datasets([item])


def test_a_set_is_the_same_as_its_tensors(made):
    """Batches, statistics and SHA-256 of a Dataset are those of the same images in memory."""
    own = from_datasets(from_data(made.train), test=from_data(made.test), classes=made.classes)
    assert (own.in_chans, own.image_size, own.classes) == (1, 8, made.classes)
    assert own.normalisation == made.normalisation
    assert {**own.fingerprint, "source": "made", "white": 255} == made.fingerprint
    expected = list(Loader(made.train, made.normalisation, 7).shuffled(1, 2))
    for (images, labels), (others, numbers) in zip(
        Loader(own.train, own.normalisation, 7).shuffled(1, 2), expected, strict=True
    ):
        assert torch.equal(images, others)
        assert torch.equal(labels, numbers)


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_give_their_dataset_and_workers(made, workers):
    given = DataLoader(from_data(made.train), batch_size=5, shuffle=True, num_workers=workers)
    own = from_datasets(given, test=from_data(made.test))
    assert own.train.workers == workers
    assert torch.equal(images_of(own.train), made.train.images)
    assert torch.equal(own.train.labels, made.train.labels)
    assert own.notes == (
        "train: of the DataLoader the Dataset is taken; order and batch size are those of the settings",
    )


def test_parts_of_sets_have_their_items_and_the_names_of_the_whole(made):
    whole = Items(zip(made.train.images, made.train.labels, strict=True), classes=["a", "b", "c", "d"])
    part, rest = random_split(whole, [30, 10], torch.Generator().manual_seed(0))
    own = from_datasets(part, test=rest)
    assert torch.equal(images_of(own.train), made.train.images[part.indices])
    assert torch.equal(own.test.labels, made.train.labels[rest.indices])
    assert own.classes == ("a", "b", "c", "d")
    chosen = from_datasets(DataLoader(whole, sampler=SubsetRandomSampler([5, 3, 9])), test=whole)
    assert torch.equal(images_of(chosen.train), made.train.images[[5, 3, 9]])
    joined = from_datasets(ConcatDataset([part, rest]), test=rest)
    assert len(joined.train) == 40


def test_targets_spare_a_pass_and_are_not_believed_where_items_say_otherwise(made):
    pairs = list(zip(made.train.images, made.train.labels.tolist(), strict=True))
    told = Items(pairs, targets=made.train.labels.tolist())
    assert torch.equal(from_datasets(Subset(told, range(30)), test=pairs).train.labels, made.train.labels[:30])
    assert told.read < 30
    # As with a target_transform, which targets know nothing of.
    wrong = Items(pairs, targets=[0] * 40)
    assert torch.equal(from_datasets(wrong, test=pairs).train.labels, made.train.labels)


def test_alone_a_tenth_of_each_class_is_held_out_or_all_is_reported_of(made):
    alone = as_image_data(from_data(made.train))
    assert (len(alone.train), len(alone.validation), alone.test) == (37, 3, None)
    assert "held out" in alone.notes[0]
    assert torch.equal(images_of(alone.train).sort(0).values.unique(), made.train.images.unique())
    reported = as_image_data(from_data(made.test), alone="test")
    assert torch.equal(images_of(reported.reported), made.test.images)
    pair = as_image_data((made.test.images, made.test.labels), alone="test")
    assert torch.equal(images_of(pair.reported), made.test.images)
    named = as_image_data({"train": from_data(made.train), "validation": from_data(made.test)})
    assert named.reported_split == "validation"
    both = as_image_data((from_data(made.train), from_data(made.test)))
    assert (len(both.train), len(both.test)) == (40, 20)
    assert as_image_data(made) is made


def test_floats_go_in_as_they_are(made):
    floats = TensorDataset(made.train.images / 255 - 0.5, made.train.labels)
    own = from_datasets(floats, test=floats)
    (images, _), *_ = Loader(own.test, own.normalisation, 40).in_order()
    assert torch.equal(images, floats.tensors[0])


class Varying(Items):
    def __getitem__(self, number):
        image, label = self.items[number]
        return image + random.randint(0, 100), label


def test_images_that_vary_are_told_of_and_vary_in_workers_too(made):
    pairs = list(zip(made.train.images, made.train.labels, strict=True))
    own = from_datasets(DataLoader(Varying(pairs), num_workers=1), test=pairs)
    assert "train images vary each time they are read: a resumed run may see other ones" in own.notes
    torch.manual_seed(1)
    one, same = images_of(own.train), images_of(own.train)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(one, same), "the draws of workers are a function of the seed"
    assert not torch.equal(one, images_of(own.train))
    assert torch.equal(state, torch.get_rng_state()), "the network's own draws are not shifted"


class Endless(IterableDataset):
    def __iter__(self):
        yield PIXELS, 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Endless(), "Endless is no set of images.*IterableDataset"),
        (DataLoader(Endless()), "DataLoader is no set of images"),
        ("photos", r"str is no set of images.*load_data\(source\)"),
        (torch.zeros(3, 1, 8, 8), "Tensor is no set of images"),
        (DataLoader([(PIXELS, 0)], sampler=WeightedRandomSampler([1.0], 1)), "a sampler or a collate_fn of its own"),
        (DataLoader([(PIXELS, 0)], collate_fn=list), "a sampler or a collate_fn of its own"),
    ],
)
def test_what_is_no_set_of_images_by_number_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        as_image_data(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "the train set is empty"),
        ([(PIXELS, 0), (PIXELS[:, :2, :2], 0)], r"image 1 .*uint8 \(3, 2, 2\), the first is uint8 \(3, 4, 4\)"),
        ([(PIXELS, 0), (PIXELS.float(), 0)], r"image 1 of the data set is float"),
        (([(PIXELS, 0)], [(PIXELS.float(), 0)]), r"one shape and kind: uint8 \(3, 4, 4\), float \(3, 4, 4\)"),
        ((torch.zeros(3, 1, 8, 8), torch.zeros(2, dtype=torch.int64)), "3 images and 2 labels"),
        (Items([(PIXELS, 0), (PIXELS, 5)], classes=["a", "b"]), "labels go up to 5, and there are 2 classes"),
    ],
)
def test_sets_that_do_not_fit_together_are_refused(given, message):
    with pytest.raises(DataError, match=message):
        images_of(as_image_data(given, alone="test").train)


def test_labels_beyond_the_network_and_unknown_splits_are_refused(made):
    with pytest.raises(DataError, match=r"labels go up to 2, and the network has 2 outputs.*num_classes=3"):
        as_image_data(from_data(made.train), outputs=2)
    with pytest.raises(ConfigError, match=r"unknown split 'val'.*validation"):
        as_image_data({"train": from_data(made.train), "val": from_data(made.test)})
    with pytest.raises(ConfigError, match="no 'train'"):
        as_image_data({"test": from_data(made.test)})


class Broken(Items):
    def __getitem__(self, number):
        if number > 8:
            raise KeyError("gone")
        return super().__getitem__(number)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_item_that_cannot_be_read_is_named(workers):
    broken = Broken([(PIXELS, 0)] * 10, targets=[0] * 10)
    broken.items[9] = None
    own = from_datasets([(PIXELS, 0)], test=[(PIXELS, 0)])
    split = type(own.train)(
        dataset=broken,
        numbers=np.arange(10),
        labels=torch.zeros(10, dtype=torch.int64),
        shape=(3, 4, 4),
        floats=False,
        workers=workers,
    )
    with pytest.raises(DataError, match="item 9 of the data set cannot be read: KeyError: 'gone'"):
        images_of(split)
