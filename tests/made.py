"""Records made by hand, for what is drawn from records."""

from resnetlab.comparison import ComparedRun, Comparison
from resnetlab.diagnostics import contrasts, degradation, flow
from resnetlab.examination import ClassScore, Examination, Mistake
from resnetlab.records import BlockGradient, EpochRecord, Metrics, RunRecord, StudyRecord, StudyRun

HOSTILE = '<script>alert("x")</script>&\'"'


def study_run(kind: str, depth: int, seed: int, error: float | None, source: str = "made") -> StudyRun:
    """A run of two epochs that ends with that training error, or that diverged (None)."""
    gradients = [BlockGradient(block=f"stages.0.{i}", gradient_norm=2.0**-i, weight_norm=1.0) for i in range(4)]
    history = [
        EpochRecord(
            epoch=epoch,
            learning_rate=0.1,
            running_loss=1.0,
            train=Metrics(loss=value, error=value, n=100),
            test=Metrics(loss=value, error=value / 2, n=50),
            seconds=1.0,
        )
        for epoch, value in ((1, 0.9), (2, error or 0.0))
    ]
    record = RunRecord(
        model=f"cifar_{kind}{depth}",
        recipe={"data": source},
        parameters=1000 * depth,
        multiply_adds=2000 * depth,
        status="diverged" if error is None else "finished",
        message="" if error is not None else f"the loss became nan {source}",
        history=history if error is not None else [],
        gradients_start=gradients,
        gradients_end=gradients,
        data={"source": source, "classes": [source, "b"], "train": 100},
        environment={"torch": "1", "processor": source},
        seconds=2.0,
    )
    flows = flow.judge(gradients)
    return StudyRun(kind=kind, depth=depth, seed=seed, flow_start=flows, flow_end=flows, record=record)


def study(source: str = "made", planned: int = 12) -> StudyRecord:
    """A study of two kinds, two depths and three seeds."""
    errors = {"plain": {8: 0.01, 56: 0.6}, "residual": {8: 0.01, 56: 0.0}}
    runs = [
        study_run(kind, depth, seed, error + 0.01 * seed, source)
        for kind, depths in errors.items()
        for depth, error in depths.items()
        for seed in range(3)
    ]
    return StudyRecord(
        settings={"data": source, "training": {"epochs": 2}, "options": {}},
        command=f"resnetlab study --data {source}",
        rules={"degradation": degradation.RULE, "gradients": flow.RULE},
        planned=planned,
        runs=runs,
        cells=degradation.make_cells(runs),
        pairs=degradation.make_pairs(runs),
        verdicts=degradation.make_verdicts(runs),
    )


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGM8wcDEwAAAA/oAzIAKlEUAAAAASUVORK5CYII="
"""A picture of 2×2 pixels."""


def run(source: str = "made", classes: int = 3) -> tuple[RunRecord, Examination]:
    """A run of two epochs on classes that are named after ``source``, and its examination: one picture of each class,
    each taken for the class before it with a probability of 3/4 but for class 0, which is right."""
    from dataclasses import replace

    names = [f"{source} {n}" for n in range(classes)]
    record = replace(
        study_run("resnet", 8, 0, 0.5, source).record,
        recipe={"data": source, "training": {"epochs": 2, "best_by": "test_error"}, "options": {source: source}},
        data={"source": source, "shape": [1, 2, 2], "classes": names, "encoding": "lossless", "sha256": "0" * 64},
    )
    return record, Examination(
        classes=names,
        n=classes,
        loss=1.0,
        top1_accuracy=1 / classes,
        top5_accuracy=1.0 if classes > 5 else None,
        calibration_error=0.25,
        unanswered=0,
        confusion=[(true, max(true - 1, 0), 1) for true in range(classes)],
        scores=[
            ClassScore(
                n=1, precision=None if k == classes - 1 else 0.5 if k == 0 else 0.0, recall=1.0 if k == 0 else 0.0
            )
            for k in range(classes)
        ],
        wrongest=[
            Mistake(sample=n, true=n, predicted=n - 1, probability=0.75, picture=PNG)
            for n in range(1, min(classes, 25))
        ],
    )


def compared_run(values: dict[str, str], seed: int, error: float | None, source: str = "made") -> ComparedRun:
    """A run of a study over axes that ends with that training error, or that diverged (None)."""
    made = study_run("resnet", 8, seed, error, source)
    return ComparedRun(values=values, seed=seed, flow_start=made.flow_start, flow_end=made.flow_end, record=made.record)


def comparison(source: str = "made") -> Comparison:
    """A study of one axis of five values, named after ``source``, and three seeds: a small, a large and an equal
    difference, and one value of which every run diverged."""
    errors = {
        source: (0.5, 0.51, 0.53),
        "near": (0.52, 0.5, 0.54),
        "far": (0.1, 0.12, 0.13),
        "even": (0.4, 0.41, 0.43),
        "lost": (None,) * 3,
    }
    runs = [
        compared_run({f"axis {source}": value}, seed, error, source)
        for value, seeds in errors.items()
        for seed, error in enumerate(seeds)
    ]
    axes = {f"axis {source}": list(errors)}
    return Comparison(
        settings={"recipe": {"data": source}},
        command=f"resnetlab study --data {source}",
        axes=axes,
        rule=contrasts.RULE,
        planned=18,
        runs=runs,
        combinations=contrasts.make_combinations(runs),
        contrasts=contrasts.make_contrasts(runs, axes),
    )
