"""Loss and error of a network on a split."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.core.errors import require_choice
from resnetlab.data.dataset import ImageData, Images, SplitName
from resnetlab.data.loader import Loader
from resnetlab.data.torch_datasets import OwnData, as_image_data
from resnetlab.records.run import ClassificationReport, ClassScore, Metrics, Mistake
from resnetlab.train.config import Precision
from resnetlab.train.distributed import sum_over_ranks
from resnetlab.train.prepare import autocast

BATCH = 256
"""Images at a time where only an evaluation asks."""


def evaluate(net: nn.Module, data: OwnData, which: SplitName | None = None) -> Metrics:
    """Mean cross-entropy and top-1 error of ``net`` on a split of ``data``, on the device of ``net``.

    By default the split is the one to report: test, or validation where there is no test. Images are standardised by
    the training statistics, as in ``fit``. Data of your own are taken as ``as_image_data`` says: a single Dataset or
    DataLoader of (image, label) is the test set, and images of uint8 are then standardised by their own statistics.

    Raises ``ConfigError`` for a split that the set has not.
    """
    data = as_image_data(data, alone="test", outputs=getattr(net, "num_classes", None))
    name = which or data.reported_split
    require_choice("split", name, data.splits)
    split = data.splits[name].to(next(net.parameters()).device)
    return evaluate_batches(net, Loader(split, data.normalisation, BATCH))


@contextmanager
def eval_mode(net: nn.Module, batch_norms: bool = False) -> Iterator[None]:
    """Evaluation mode as a context manager; restores every module's own mode, since parts of a net may be frozen.

    With ``batch_norms`` these alone take the statistics of the batch, as in training, while nothing is dropped; their
    running statistics then move, unless the pass is made on copies.
    """
    modes = [(module, module.training) for module in net.modules()]
    for module, _ in modes:
        module.training = batch_norms and isinstance(module, nn.modules.batchnorm._BatchNorm)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.inference_mode()
def evaluate_batches(
    net: nn.Module, loader: Loader, precision: Precision = "fp32", on_batch: Callable[[], None] | None = None
) -> Metrics:
    """Mean cross-entropy and top-1 error over every sample of the split, in ``eval_mode``.

    A NaN among the logits counts as an error. ``on_batch`` is called before every batch, and may raise. Sums stay on
    the device until the end. Several ranks share the batches; each batch has a slot of its own in the sum over ranks,
    so that every number of ranks gives the same bits.
    """
    batches = -(-len(loader) // loader.batch_size)
    losses = torch.zeros(batches, device=loader.device, dtype=torch.float64)
    wrong = torch.zeros(batches, device=loader.device, dtype=torch.int64)
    with eval_mode(net):
        for number, (images, labels) in enumerate(loader.in_order()):
            if on_batch:
                on_batch()
            with autocast(precision, loader.device):
                logits = net(images).float()
            slot = loader.rank + number * loader.ranks
            losses[slot] = F.cross_entropy(logits, labels, reduction="sum")
            # argmax gives the index of a NaN, which could pass for the right class.
            wrong[slot] = ((logits.argmax(dim=1) != labels) | logits.isnan().any(dim=1)).sum()
    loss, errors = sum_over_ranks(losses).sum().item(), sum_over_ranks(wrong).sum().item()
    return Metrics(loss=loss / len(loader), error=errors / len(loader), n=len(loader))


BINS = 15
ERRORS = 24
"""Most confident errors that a report shows."""
SIDE = 128
TOP = 5


@torch.inference_mode()
def classification_report(net: nn.Module, data: ImageData, loader: Loader) -> ClassificationReport:
    """Every answer of ``net`` on the reported split of ``data``, in one pass in ``eval_mode``.

    ``loader`` gives the batches of that split in order. A NaN among the logits counts as an error, whatever their
    argmax. Answers stay on the device until the end.
    """
    classes = data.classes
    with eval_mode(net):
        batches = [_answers(net(images).float(), labels) for images, labels in loader.in_order()]
    true, predicted, probability, loss, answered, in_top = torch.cat(batches, dim=1).cpu()
    true, predicted = true.long(), predicted.long()
    answered = answered.bool()
    right = (true == predicted) & answered
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    confusion.index_put_((true[answered], predicted[answered]), torch.ones((), dtype=torch.int64), accumulate=True)
    mean_loss = loss.mean()
    return ClassificationReport(
        split=data.reported_split,
        classes=list(classes),
        n=len(true),
        loss=mean_loss.item() if mean_loss.isfinite() else None,
        top1_accuracy=right.double().mean().item(),
        top5_accuracy=in_top.mean().item() if len(classes) > TOP else None,
        calibration_error=calibration_error(probability[answered], right[answered]),
        unanswered=int((~answered).sum()),
        confusion=[(int(t), int(p), int(confusion[t, p])) for t, p in confusion.nonzero()],
        scores=class_scores(confusion, torch.bincount(true, minlength=len(classes))),
        most_confident_errors=_errors(true, predicted, probability, answered & ~right, data.reported),
    )


def calibration_error(confidence: Tensor, right: Tensor, bins: int = BINS) -> float | None:
    """Expected calibration error Σ_b n_b/n · |accuracy_b - confidence_b| over bins of equal width, ((b-1)/B, b/B].

    ``confidence`` is the probability of the predicted class and ``right`` whether that class is the true one, both
    ``(N,)``. None for N = 0. Source: Guo et al. 2017, arXiv:1706.04599, eq. 5.
    """
    if not len(confidence):
        return None
    bin_of = (confidence.double() * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64)
    gap.index_add_(0, bin_of, right.double() - confidence.double())
    return gap.abs().sum().item() / len(confidence)


def class_scores(confusion: Tensor, counts: Tensor) -> list[ClassScore]:
    """Precision and recall of every class: ``confusion`` ``(K, K)`` with a row for each true class, ``counts`` ``(K,)``
    the images of each, of which some may be in no column."""
    hits, columns = confusion.diagonal().tolist(), confusion.sum(dim=0).tolist()
    return [
        ClassScore(n=n, precision=hit / column if column else None, recall=hit / n if n else None)
        for hit, column, n in zip(hits, columns, counts.tolist(), strict=True)
    ]


def encode_png(image: Tensor, side: int = SIDE) -> str:
    """An image, uint8 ``(C, H, W)``, as a PNG in base64, shrunk to at most ``side`` pixels.

    Of images that have neither one nor three channels the first is shown, in grey.
    """
    from PIL import Image

    pixels = image.cpu().numpy()
    shown = Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0])
    shown.thumbnail((side, side))
    buffer = BytesIO()
    shown.save(buffer, format="PNG", optimize=True)
    return b64encode(buffer.getvalue()).decode()


def brighten(images: Tensor) -> Tensor:
    """All images times the whole number that brings the brightest pixel of any nearest to white: the digits have grey
    levels from 0 to 16, which would look black. Images that use their range stay as they are."""
    return images * (255 // max(1, int(images.max())))


def _answers(logits: Tensor, labels: Tensor) -> Tensor:
    """For each sample the true class, the predicted one and its probability, the loss, and whether there is an answer
    and the true class among the first five: ``(6, B)`` as float64, which holds every class number exactly."""
    answered = ~logits.isnan().any(dim=1)
    predicted = logits.argmax(dim=1)
    probability = logits.softmax(dim=1).gather(1, predicted[:, None])[:, 0]
    first = logits.topk(min(TOP, logits.shape[1])).indices
    # Among equal logits topk and argmax may choose differently: the first answer is always among the first five.
    in_top = (first == labels[:, None]).any(dim=1) | (predicted == labels)
    loss = F.cross_entropy(logits, labels, reduction="none")
    # The probability of an infinite logit is computed as a NaN, and is 1.
    columns = (labels, predicted, probability.nan_to_num(nan=1.0), loss, answered, in_top & answered)
    return torch.stack([column.double() for column in columns])


def _errors(true: Tensor, predicted: Tensor, probability: Tensor, wrong: Tensor, split: Images) -> list[Mistake]:
    samples = wrong.nonzero()[:, 0]
    order = probability[samples].argsort(descending=True, stable=True)
    samples = samples[order[:ERRORS]]
    images = brighten(next(split.batches([samples]))) if len(samples) else ()
    return [
        Mistake(
            sample=sample,
            name=split.names[sample] if split.names is not None else None,
            true=int(true[sample]),
            predicted=int(predicted[sample]),
            probability=float(probability[sample]),
            image=encode_png(image),
        )
        for sample, image in zip(samples.tolist(), images, strict=True)
    ]
