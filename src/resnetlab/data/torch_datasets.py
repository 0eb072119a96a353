"""Data of your own: what torch calls a ``Dataset`` or a ``DataLoader``, as a set of images with its splits."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
    get_worker_info,
)

from resnetlab.core.errors import ConfigError, DataError, first_line, require_choice
from resnetlab.data.dataset import (
    ORDER,
    ImageData,
    Normalisation,
    Numbers,
    SplitName,
    hold_out,
)
from resnetlab.data.numbered import NumberedSplit
from resnetlab.data.processes import answers_of
from resnetlab.data.transforms import ResizedCrop

OwnSet: TypeAlias = Dataset[Any] | DataLoader[Any] | Sequence[Any] | tuple[Tensor, Tensor]
OwnData: TypeAlias = ImageData | OwnSet | tuple[OwnSet, OwnSet] | Mapping[SplitName, OwnSet]

KEYS = (("image", "label"), ("img", "label"), ("pixel_values", "labels"))
"""Names of image and label in items that are dicts, as Hugging Face's are."""
TRIED = 8
"""Images that are read twice to see whether they are the same each time."""


def as_image_data(data: OwnData, *, alone: SplitName = "train", outputs: int | None = None) -> ImageData:
    """Data of any kind that ``fit``, ``evaluate`` and ``diagnose`` take, as a set of images.

    An ``ImageData`` as it is; a pair of sets is (train, test), a mapping names its splits. A single set, or a pair of
    tensors (images, labels), is ``alone``: with "train" as in ``from_datasets``, with "test" it is to be reported of.
    ``outputs`` are those of the network that is to know the labels.
    """
    if isinstance(data, ImageData):
        return data
    if isinstance(data, Mapping):
        for name in data:
            require_choice("split", name, ORDER)
        if "train" not in data:
            raise ConfigError(f"there is no 'train' among the splits {', '.join(data)}; name the training set so")
        found = from_datasets(data["train"], validation=data.get("validation"), test=data.get("test"))
    elif isinstance(data, tuple) and not isinstance(data[0], Tensor) and len(data) == 2:
        train, test = cast("tuple[OwnSet, OwnSet]", data)
        found = from_datasets(train, test=test)
    else:
        one = cast("OwnSet", data)
        found = from_datasets(one) if alone == "train" else from_datasets(one, test=one)
    most = max(int(split.labels.max()) for split in found.splits.values())
    if outputs and most >= outputs:
        raise DataError(
            f"labels go up to {most}, and the network has {outputs} outputs, for labels 0 to {outputs - 1}: number the "
            f"labels from 0, or give the network num_classes={most + 1}"
        )
    return found


def from_datasets(
    train: OwnSet,
    *,
    validation: OwnSet | None = None,
    test: OwnSet | None = None,
    classes: Sequence[str] | None = None,
    standard: Normalisation | None = None,
) -> ImageData:
    """A set of images from map-style Datasets of (image, label), which are read when a batch asks for them.

    Without validation and test, a tenth of each class of ``train`` is held out as validation.

    - An image is a tensor or array ``(C, H, W)``, an array ``(H, W)`` or ``(H, W, C)``, or a PIL image; all are square
      and of one size. Of uint8 they are standardised by the training images' statistics, or by ``standard``; floats go
      into the network as they are. The augmentation of the settings comes on top of the Dataset's own.
    - A label is a whole number from 0. ``classes`` are their names, by default ``dataset.classes``, else numbers.
    - Of a DataLoader its Dataset and ``num_workers`` are taken, and which images its sampler chooses; order and batch
      size are those of the settings.

    A run on them resumes bit for bit where an image is the same each time it is read, and where a Dataset draws from
    torch's generator alone, without workers: that one is a function of (seed, step). Where it draws otherwise
    (``random``, numpy, workers) a resumed run sees other images; the set's notes say that they vary.

    Raises ``ConfigError`` for what is no such Dataset, ``DataError`` for items of another form.

    >>> fit(net, from_datasets(train_set, test=test_set), TrainConfig(), seed=0)
    """
    given: dict[SplitName, OwnSet | None] = {"train": train, "validation": validation, "test": test}
    notes: list[str] = []
    splits = {name: _split(one, name, notes) for name, one in given.items() if one is not None}
    forms = {(split.shape, split.floats) for split in splits.values()}
    if len(forms) > 1:
        raise DataError(f"all splits must have images of one shape and kind: {', '.join(map(str, splits.values()))}")
    most = max(int(split.labels.max()) for split in splits.values())
    names = tuple(classes or _class_names(splits["train"].dataset) or map(str, range(most + 1)))
    if most >= len(names):
        raise DataError(f"labels go up to {most}, and there are {len(names)} classes, for labels 0 to {len(names) - 1}")
    if splits["train"].floats and standard is None:
        standard = Normalisation(mean=(0.0,) * splits["train"].shape[0], std=(1.0,) * splits["train"].shape[0])
    data = ImageData(source="datasets", **splits, classes=names, notes=tuple(notes), standard=standard, white=None)  # type: ignore[arg-type]
    if len(splits) > 1:
        return data
    note = "a tenth of each class of the training images is held out to validate on"
    return replace(hold_out(data, 0), notes=(*notes, note))


@dataclass(frozen=True, kw_only=True)
class DatasetSplit(NumberedSplit):
    """The items ``numbers`` of a map-style Dataset, read when they are asked for; ``floats`` says of which kind.

    ``workers`` processes read ahead; with 0 it is done in this process.
    """

    dataset: Any
    floats: bool
    workers: int = 0

    def __str__(self) -> str:
        return f"{'float' if self.floats else 'uint8'} {self.shape}"

    def batches(self, plan: Sequence[Tensor], crop: ResizedCrop | None = None) -> Iterator[Tensor]:
        requests = [self.numbers[which.numpy()] for which in plan]
        with closing(self._read(requests)) as made:
            for which, images in zip(plan, made, strict=True):
                if isinstance(images, str):
                    raise DataError(images)
                images = images.to(self.labels.device)
                yield images if crop is None else crop.cut(images, which)

    def _read(self, requests: list[Numbers]) -> Generator[Tensor | str]:
        batches, count = _Batches(self), min(self.workers, len(requests))
        if not count:
            yield from (batches[request] for request in requests)
            return
        # New ones for every pass: other draws for each epoch, and none from the global generator, which would shift
        # those of the network.
        yield from answers_of(batches, requests, count, seed=torch.initial_seed())


class _Batches(Dataset[Any]):
    """The batch of some items; in a worker the message of the error that it meets, since the loader would add the
    worker's traceback to an exception."""

    def __init__(self, split: DatasetSplit) -> None:
        self.split = split

    def __getitem__(self, numbers: Numbers) -> Tensor | str:
        try:
            return torch.stack([self._image(item) for item in numbers.tolist()])
        except DataError as error:
            if get_worker_info() is None:
                raise
            return str(error)

    def _image(self, number: int) -> Tensor:
        image, _ = read_item(self.split.dataset, number)
        floats = image.is_floating_point()
        if tuple(image.shape) != self.split.shape or floats != self.split.floats:
            raise DataError(
                f"image {number} of the data set is {'float' if floats else 'uint8'} {tuple(image.shape)}, the first "
                f"is {self.split}: all must have one shape and kind; resize them in the Dataset"
            )
        return image


def read_item(dataset: Any, number: int) -> tuple[Tensor, int]:
    """Image ``(C, H, W)``, uint8 or float32, and label of an item. Raises ``DataError`` for one of another form."""
    try:
        item = dataset[number]
    except Exception as error:  # a Dataset is anybody's code
        raise DataError(
            f"item {number} of the data set cannot be read: {type(error).__name__}: {first_line(error)}"
        ) from error
    if isinstance(item, Mapping):
        item = next(((item[image], item[label]) for image, label in KEYS if image in item and label in item), item)
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"item {number} of the data set is a {type(item).__name__}; it must be a pair (image, label)")
    return _image_tensor(item[0], number), _label_number(item[1], number)


def _image_tensor(image: Any, number: int) -> Tensor:
    kind = type(image).__name__
    if hasattr(image, "convert") and image.mode[0] not in "IF":
        grey = image.mode in ("1", "L")
        image = torch.from_numpy(np.atleast_3d(np.array(image.convert("L" if grey else "RGB")))).permute(2, 0, 1)
    elif isinstance(image, np.ndarray):
        image = torch.from_numpy(np.ascontiguousarray(image))
        if image.dim() == 2:
            image = image[None]
        elif image.dim() == 3 and image.shape[0] == image.shape[1] != image.shape[2]:
            image = image.permute(2, 0, 1)
    if isinstance(image, Tensor):
        kind = f"tensor {tuple(image.shape)} of {str(image.dtype).removeprefix('torch.')}"
        if image.dim() == 3 and image.shape[1] == image.shape[2]:
            if image.dtype == torch.uint8:
                return image
            if image.is_floating_point():
                return image.detach().float()
    raise DataError(
        f"image {number} of the data set is a {kind}; it must be a tensor (C, H, W) of uint8 or floats, square, or a "
        "PIL image of 8 bits: give the Dataset a transform such as Resize((224, 224))"
    )


def _label_number(label: Any, number: int) -> int:
    value = np.asarray(label)
    if value.size != 1 or value.dtype.kind not in "iub" or value.item() < 0:
        what = f"of shape {value.shape}" if value.size != 1 else repr(value.item())
        raise DataError(
            f"label {number} of the data set is {what}; it must be a whole number from 0: label.argmax() of a one-hot"
        )
    return int(value.item())


def _split(given: OwnSet, name: SplitName, notes: list[str]) -> DatasetSplit:
    """The split of a set; ``notes`` gains what a user should know of it."""
    dataset, workers = _dataset_of(given, name, notes)
    if not len(dataset):
        raise DataError(f"the {name} set is empty")
    first, _ = read_item(dataset, 0)
    tried = range(min(TRIED, len(dataset)))
    if any(not torch.equal(read_item(dataset, n)[0], read_item(dataset, n)[0]) for n in tried):
        notes.append(f"{name} images vary each time they are read: a resumed run may see other ones")
    labels = _labels(dataset)
    shape = cast("tuple[int, int, int]", tuple(first.shape))
    floats = first.is_floating_point()
    return DatasetSplit(
        dataset=dataset, numbers=np.arange(len(labels)), labels=labels, shape=shape, floats=floats, workers=workers
    )


def _dataset_of(given: Any, name: SplitName, notes: list[str]) -> tuple[Any, int]:
    """The map-style Dataset behind what was given, and how many processes read it."""
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], Tensor) and isinstance(given[1], Tensor):
        if len(given[0]) != len(given[1]):
            raise DataError(f"{len(given[0])} images and {len(given[1])} labels: give a label for each image")
        return TensorDataset(*given), 0
    dataset, workers = given, 0
    if isinstance(given, DataLoader):
        dataset, workers, sampler = given.dataset, given.num_workers, given.sampler
        if isinstance(sampler, SubsetRandomSampler):
            dataset = Subset(dataset, list(sampler.indices))
        whole = isinstance(sampler, SequentialSampler) or (
            isinstance(sampler, RandomSampler) and not sampler.replacement and len(sampler) == len(dataset)
        )
        usual = isinstance(given.batch_sampler, BatchSampler | None) and given.collate_fn is default_collate
        iterable = isinstance(dataset, IterableDataset)
        if not iterable and not (usual and (whole or isinstance(sampler, SubsetRandomSampler))):
            raise ConfigError(
                f"the {name} DataLoader has a sampler or a collate_fn of its own, which is not used here: give its "
                "Dataset, with what it does done in the Dataset"
            )
        notes.append(f"{name}: of the DataLoader the Dataset is taken; order and batch size are those of the settings")
    if isinstance(dataset, IterableDataset | str | bytes | Tensor):
        dataset = None
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise ConfigError(
            f"{type(given).__name__} is no set of images: give a Dataset with a length whose items are (image, label) "
            "by number (no IterableDataset), a DataLoader of one, or load_data(source) of a folder or file"
        )
    return dataset, workers


def _labels(dataset: Any) -> Tensor:
    """The labels of a Dataset ``(N,)``: those that it says in ``targets``, if its items agree; else each item's."""
    where, base = np.arange(len(dataset)), dataset
    while isinstance(base, Subset):
        where, base = np.asarray(base.indices)[where], base.dataset
    if isinstance(base, TensorDataset):
        return torch.tensor([_label_number(base.tensors[-1][n], n) for n in where.tolist()])
    told = np.asarray(getattr(base, "targets", ()))
    if told.ndim == 1 and told.dtype.kind in "iu" and len(told) == len(base) and told.min(initial=0) >= 0:
        tried = np.unique(np.linspace(0, len(where) - 1, TRIED).astype(int))
        if all(read_item(dataset, int(n))[1] == told[where[n]] for n in tried):
            return torch.from_numpy(told[where].astype(np.int64))
    return torch.tensor([read_item(dataset, number)[1] for number in range(len(dataset))])


def _class_names(dataset: Any) -> list[str] | None:
    """The names that a Dataset, or the one that it is a part of, has for its classes."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    found = getattr(dataset, "classes", None)
    return [str(name) for name in found] if isinstance(found, list | tuple) and found else None
