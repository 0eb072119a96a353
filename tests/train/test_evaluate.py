import base64
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from resnetlab.core.serialize import read_record, write_record
from resnetlab.data.dataset import Split
from resnetlab.data.loader import Loader
from resnetlab.models.zoo import create_model
from resnetlab.records.run import ClassificationReport, ClassScore
from resnetlab.train.evaluate import (
    brighten,
    calibration_error,
    classification_report,
    encode_png,
    evaluate,
    evaluate_batches,
)
from tests.conftest import make_data


class Answers(nn.Module):
    """Gives the n-th image the n-th row of logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.place = 0

    def forward(self, x):
        start, self.place = self.place, self.place + len(x)
        return self.logits[start : self.place]


def of_probabilities(rows: list[list[float]]) -> Answers:
    return Answers(torch.tensor(rows).log())


def report_on(net: nn.Module, labels: list[int], classes: int, batch_size: int = 2) -> ClassificationReport:
    images = torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8)
    split = Split(images=images, labels=torch.tensor(labels), names=[f"{n}.png" for n in range(len(labels))])
    data = replace(make_data(), test=split, classes=tuple(f"class {n}" for n in range(classes)))
    return classification_report(net, data, Loader(split, data.normalisation, batch_size))


HAND = [[0.9, 0.1, 0.0], [0.25, 0.5, 0.25], [0.0, 0.2, 0.8], [0.6, 0.4, 0.0], [0.1, 0.8, 0.1]]


def test_confusion_and_scores_of_a_case_by_hand():
    """Predicted 0 1 2 0 1 where 0 1 1 1 1 is true."""
    found = report_on(of_probabilities(HAND), [0, 1, 1, 1, 1], classes=3)
    assert found.confusion == [(0, 0, 1), (1, 0, 1), (1, 1, 2), (1, 2, 1)]
    assert found.scores == [
        ClassScore(n=1, precision=0.5, recall=1.0),
        ClassScore(n=4, precision=1.0, recall=0.5),
        ClassScore(n=0, precision=0.0, recall=None),
    ]
    assert (found.n, found.unanswered, found.top1_accuracy, found.top5_accuracy) == (5, 0, pytest.approx(0.6), None)
    assert found.loss == pytest.approx(-np.log([0.9, 0.5, 0.2, 0.4, 0.8]).mean(), rel=1e-6)


def test_most_confident_errors_come_in_the_order_of_their_probability():
    found = report_on(of_probabilities(HAND), [0, 1, 1, 1, 1], classes=3)
    assert [(m.name, m.true, m.predicted) for m in found.most_confident_errors] == [("2.png", 1, 2), ("3.png", 1, 0)]
    assert [m.probability for m in found.most_confident_errors] == pytest.approx([0.8, 0.6])


def test_calibration_error_of_a_case_by_hand():
    """Two bins of fifteen: 0.65 and 0.62 with one right of two, and 0.9 that is right."""
    confidence, right = torch.tensor([0.65, 0.62, 0.9]), torch.tensor([True, False, True])
    assert calibration_error(confidence, right) == pytest.approx((abs(1 - 1.27) + abs(1 - 0.9)) / 3)
    assert calibration_error(confidence[:0], right[:0]) is None
    # The upper bound of a bin belongs to it: 0.2 = 3/15 shares a bin with 0.14, not with 0.26.
    close = torch.tensor([0.2, 0.14], dtype=torch.float64)
    assert calibration_error(close, torch.tensor([True, False])) == pytest.approx((0.8 - 0.14) / 2)


def test_calibration_error_equals_the_definition_bin_by_bin():
    rng = np.random.default_rng(0)
    confidence, right = rng.uniform(0.05, 1, 500), rng.integers(0, 2, 500).astype(bool)
    expected = 0.0
    for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(torch.from_numpy(confidence), torch.from_numpy(right)) == pytest.approx(expected)


def test_top5_takes_the_fifth_and_not_the_sixth():
    logits = torch.arange(7, 0, -1.0).expand(7, 7).clone()  # class 0 first, class 6 last
    found = report_on(Answers(logits), list(range(7)), classes=7)
    assert found.top1_accuracy == pytest.approx(1 / 7)
    assert found.top5_accuracy == pytest.approx(5 / 7)


def test_nan_is_wrong_and_in_no_column():
    logits = torch.tensor([[float("nan"), 0.0, 0.0], [5.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    found = report_on(Answers(logits), [0, 0, 1], classes=3)
    assert (found.unanswered, found.top1_accuracy, found.loss) == (1, pytest.approx(2 / 3), None)
    assert sum(count for *_, count in found.confusion) == 2
    assert found.scores[0] == ClassScore(n=2, precision=1.0, recall=0.5)
    assert found.most_confident_errors == []
    nothing = report_on(Answers(logits[:1]), [0], classes=3)
    assert (nothing.unanswered, nothing.top1_accuracy, nothing.calibration_error) == (1, 0.0, None)


def test_equal_logits_of_all_classes_leave_top5_at_least_top1():
    found = report_on(Answers(torch.zeros(8, 8)), [0] * 8, classes=8)
    assert found.top1_accuracy == found.top5_accuracy == 1


def test_report_agrees_with_the_evaluation_and_puts_the_mode_back(tmp_path):
    data = make_data(classes=7)
    net = create_model("cifar_resnet8", in_chans=1, num_classes=7).train()
    loader = Loader(data.test, data.normalisation, batch_size=16)
    expected = evaluate_batches(net, loader)
    found = classification_report(net, data, loader)
    assert net.training
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert 1 - found.top1_accuracy == pytest.approx(expected.error)
    assert sum(count for *_, count in found.confusion) == found.n == 40
    write_record(tmp_path / "examination.json", found)
    assert read_record(ClassificationReport, tmp_path / "examination.json") == found
    first = found.most_confident_errors[0]
    shown = np.asarray(Image.open(BytesIO(base64.b64decode(first.image))))
    assert data.test.images.max() > 127
    assert np.array_equal(shown, data.test.images[first.sample, 0].numpy())
    assert data.test.labels[first.sample] == first.true != first.predicted


def test_at_most_24_images_are_kept():
    found = report_on(Answers(torch.tensor([[0.0, 9.0]]).expand(40, 2)), [0] * 40, classes=2, batch_size=16)
    assert [mistake.sample for mistake in found.most_confident_errors] == list(range(24))


def test_a_frozen_part_stays_in_evaluation_mode():
    data = make_data()
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3).train()
    net.stem.eval()
    modes = [module.training for module in net.modules()]
    evaluate(net, data)
    classification_report(net, data, Loader(data.reported, data.normalisation, 32))
    assert [module.training for module in net.modules()] == modes


@pytest.mark.parametrize(("shape", "size", "mode"), [((3, 300, 200), (85, 128), "RGB"), ((2, 8, 8), (8, 8), "L")])
def test_large_images_are_shrunk_and_odd_channels_shown_in_grey(shape, size, mode):
    image = Image.open(BytesIO(base64.b64decode(encode_png(torch.full(shape, 7, dtype=torch.uint8)))))
    assert (image.size, image.mode) == (size, mode)


def test_matrix_of_a_thousand_classes_is_kept_sparse(tmp_path):
    labels = torch.arange(2000) % 1000
    found = report_on(Answers(nn.functional.one_hot(labels, 1000) * 9.0), labels.tolist(), classes=1000, batch_size=500)
    write_record(tmp_path / "examination.json", replace(found, most_confident_errors=[]))
    assert (tmp_path / "examination.json").stat().st_size < 200_000


def test_dark_images_are_brightened_by_one_whole_factor():
    assert brighten(torch.tensor([[0, 8], [16, 3]], dtype=torch.uint8)).tolist() == [[0, 120], [240, 45]]
    assert brighten(torch.tensor([0, 7, 128], dtype=torch.uint8)).tolist() == [0, 7, 128]
    assert brighten(torch.zeros(2, dtype=torch.uint8)).tolist() == [0, 0]
