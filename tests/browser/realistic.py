"""Pages as large as those of real runs: a long run on twenty classes, studies of docs/study, two axes, 54 blocks."""

from base64 import b64encode
from dataclasses import replace
from io import BytesIO
from itertools import product

import numpy as np
from PIL import Image

from resnetlab.core.randomness import generator
from resnetlab.core.serialize import read_record
from resnetlab.records import gradients as flow
from resnetlab.records.diagnosis import Diagnosis, Lesion, NetResult
from resnetlab.records.gradients import BlockGradient
from resnetlab.records.run import ClassificationReport, ClassScore, EpochRecord, Metrics, Mistake, RunRecord
from resnetlab.records.study import StudyRecord
from resnetlab.records.study_diagnosis import StudyDiagnosis
from resnetlab.report.diagnosis.page import draw_diagnosis, render_diagnosis_page
from resnetlab.report.run.figures import draw_run_figures
from resnetlab.report.run.page import render_run_page
from resnetlab.report.study.diagnosis import draw_study_diagnosis, render_study_diagnosis
from resnetlab.report.study.explore import render_explore
from resnetlab.report.study.figures import draw_figures
from resnetlab.report.study.page import render_page
from resnetlab.study import read_results
from tests.conftest import ROOT
from tests.made import block_statistics, diagnosis, lesion_result, run, study_of

CLASSES = [
    *("aquarium fish", "baby", "beaver", "bottle", "castle", "chimpanzee", "dinosaur", "forest", "golden retriever"),
    *("lawn mower", "maple tree", "motorcycle", "orchid", "pickup truck", "pine tree", "skyscraper", "streetcar"),
    *("sweet pepper", "television", "willow tree"),
]
BLOCKS = 54


def long_run() -> tuple[RunRecord, ClassificationReport]:
    """A run of 164 epochs on twenty classes, with 24 images of mistakes."""
    record, _ = run()
    draw = generator(0, "page of a long run")
    history = [
        EpochRecord(
            epoch=epoch,
            learning_rate=0.1 * 0.1 ** sum(epoch > milestone for milestone in (81, 122)),
            running_loss=loss * 1.1,
            running_error=loss / 3.2,
            train=Metrics(loss=loss, error=loss / 3.5, n=50_000),
            test=Metrics(loss=loss + 0.3, error=loss / 4 + 0.08, n=10_000),
            seconds=31.2,
            images_per_second=float(draw.normal(1800, 40)),
        )
        for epoch in range(1, 165)
        for loss in (2.9 * np.exp(-epoch / 30) + float(draw.uniform(0, 0.05)),)
    ]
    confusion = [
        (true, predicted, 430 if true == predicted else int(draw.integers(0, 9)))
        for true, predicted in product(range(20), range(20))
    ]
    report = ClassificationReport(
        split="test",
        classes=CLASSES,
        n=10_000,
        loss=history[-1].reported.loss,
        top1_accuracy=0.9,
        top5_accuracy=0.991,
        calibration_error=0.043,
        unanswered=0,
        confusion=confusion,
        scores=[ClassScore(n=500, precision=0.9, recall=0.8 + k / 100) for k in range(20)],
        most_confident_errors=[
            Mistake(sample=37 * n, true=n % 20, predicted=(n + 1) % 20, probability=0.99 - n / 100, image=_image(n))
            for n in range(24)
        ],
    )
    data = record.data | {"source": "folder:~/images/twenty classes, resized", "classes": CLASSES}
    return replace(record, model="cifar_resnet110", history=history, data=data, parameters=1_730_714), report


def two_axes() -> StudyRecord:
    """A study of three shortcuts and four learning rates with five seeds."""
    draw = generator(0, "page of two axes")
    axes = {"shortcut": ["A", "B", "C"], "training.lr": ["0.01", "0.02", "0.05", "0.1"]}
    errors = {
        (shortcut, lr): [
            0.09 - 0.008 * column + 0.05 * column * (row == 2) + float(draw.normal(0, 0.004)) for _ in range(5)
        ]
        for (row, shortcut), (column, lr) in product(*(enumerate(values) for values in axes.values()))
    }
    return study_of(tuple(axes), errors, planned=60)


def deep_diagnosis() -> Diagnosis:
    """A net of 54 blocks with a plain twin whose gradients explode."""
    found = diagnosis()
    assert found.plain is not None
    return replace(
        found,
        net=_deep(found.net, 0.0),
        plain=_deep(found.plain, 0.3),
        initial=_deep(found.initial or found.net, 0.1),
    )


def _deep(net: NetResult, growth: float) -> NetResult:
    names = [f"stages.{n // 18}.{n % 18}" for n in range(BLOCKS)]
    gradients = [
        BlockGradient(block=name, gradient_norm=float(np.exp(growth * (BLOCKS - n))), weight_norm=3.0)
        for n, name in enumerate(names)
    ]
    blocks = [block_statistics(n, net.plain, block=name, ratio=1 / (n + 1)) for n, name in enumerate(names)]
    errors = [0.1 + (0.7 if net.plain else 0.3 / (n + 1)) for n in range(BLOCKS)]
    lesions = lesion_result(*errors)
    dropped = [Lesion(blocks=[name], error=error, loss=1.0) for name, error in zip(names, errors, strict=True)]
    return replace(
        net, gradients=gradients, flow=flow.judge(gradients), blocks=blocks, lesion=replace(lesions, dropped=dropped)
    )


def _image(number: int) -> str:
    pixels = generator(0, "image", number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format="png")
    return b64encode(stream.getvalue()).decode()


def _run_page() -> str:
    record, report = long_run()
    return render_run_page(record, report, "resnetlab train recipes/cifar10/resnet110.yaml", draw_run_figures(record))


def _depth_page() -> str:
    record = read_results(ROOT / "docs" / "study" / "digits.json")
    return render_page(record, draw_figures(record))


def _axis_page() -> str:
    return render_page(two_axes(), draw_figures(two_axes()))


def _explore_page() -> str:
    return render_explore(read_results(ROOT / "docs" / "study" / "digits.json"))


def _diagnosis_page() -> str:
    return render_diagnosis_page(deep_diagnosis(), draw_diagnosis(deep_diagnosis()))


def _seedwise_page() -> str:
    record = read_record(StudyDiagnosis, ROOT / "docs" / "study" / "digits-read.json")
    return render_study_diagnosis(record, draw_study_diagnosis(record))


REALISTIC = {
    "run": _run_page,
    "depth": _depth_page,
    "axis": _axis_page,
    "explore": _explore_page,
    "diagnosis": _diagnosis_page,
    "seedwise": _seedwise_page,
}
