"""Records made by hand, for what is drawn from records."""

from collections.abc import Sequence
from dataclasses import replace
from math import comb

from resnetlab.records import gradients as flow
from resnetlab.records.by_depth import (
    AgreementResult,
    BlockAgreement,
    BlockCosines,
    BlockRank,
    RankResult,
    ShatteringResult,
    StepResult,
)
from resnetlab.records.diagnosis import (
    ANALYSES,
    BlockStatistics,
    CamResult,
    Diagnosis,
    IdentityResult,
    LandscapeResult,
    Lesion,
    LesionResult,
    NetResult,
    PathLength,
    PathResult,
    SettingResult,
    SignalResult,
)
from resnetlab.records.gradients import BlockGradient, Flow
from resnetlab.records.run import ClassificationReport, ClassScore, EpochRecord, Metrics, Mistake, RunRecord
from resnetlab.records.study import StudyRecord, StudyRun
from resnetlab.records.study_diagnosis import RunResult, StudyDiagnosis
from resnetlab.study.results import make_record
from resnetlab.study.results import study_run as make_run

HOSTILE = '<script>alert("x")</script>&\'"'


def run_record(error: float | None, source: str = "made", model: str = "cifar_resnet8") -> RunRecord:
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
    return RunRecord(
        model=model,
        recipe={"data": source},
        parameters=8000,
        multiply_adds=16000,
        status="diverged" if error is None else "finished",
        message="" if error is not None else f"the loss became nan {source}",
        history=history if error is not None else [],
        gradients_start=gradients,
        gradients_end=gradients,
        data={"source": source, "classes": [source, "b"], "train": 100, "train_counts": [10] * 10},
        environment={"torch": "1", "processor": source},
        seconds=2.0,
    )


Errors = dict[tuple[str, ...], Sequence[float | None]]
"""Training errors by a value of each axis, a seed each; None is a run that diverged."""


def study_runs(axes: Sequence[str], errors: Errors, source: str = "made") -> list[StudyRun]:
    """The runs of a study that end with these errors."""
    return [
        make_run(dict(zip(axes, place, strict=True)), seed, run_record(error, source))
        for place, seeds in errors.items()
        for seed, error in enumerate(seeds)
    ]


def study_of(axes: Sequence[str], errors: Errors, source: str = "made", planned: int = 12) -> StudyRecord:
    """The study of these runs."""
    values = {name: list(dict.fromkeys(place[n] for place in errors)) for n, name in enumerate(axes)}
    settings = {"recipe": {"data": source, "training": {"epochs": 2}, "options": {}}}
    return make_record(study_runs(axes, errors, source), values, planned, settings, f"resnetlab study --data {source}")


def depth_study(source: str = "made", planned: int = 12) -> StudyRecord:
    """A study of plain and residual nets, two depths and three seeds; the plain ones degrade."""
    ends = {("none", "8"): 0.01, ("none", "56"): 0.6, ("default", "8"): 0.01, ("default", "56"): 0.0}
    errors = {place: [end + 0.01 * (1 + end) * seed for seed in range(3)] for place, end in ends.items()}
    return study_of(("shortcut", "depth"), errors, source, planned)


def axis_study(source: str = "made") -> StudyRecord:
    """A study of one axis of five values, named after ``source``, and three seeds: a small, a large and an equal
    difference, and one value of which every run diverged."""
    errors: Errors = {
        (source,): (0.5, 0.51, 0.53),
        ("near",): (0.52, 0.5, 0.54),
        ("far",): (0.1, 0.12, 0.13),
        ("even",): (0.4, 0.41, 0.43),
        ("lost",): (None,) * 3,
    }
    return study_of((f"axis {source}",), errors, source, planned=18)


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGM8wcDEwAAAA/oAzIAKlEUAAAAASUVORK5CYII="
"""An image of 2×2 pixels."""


def run(source: str = "made", classes: int = 3) -> tuple[RunRecord, ClassificationReport]:
    """A run of two epochs on classes that are named after ``source``, chosen by validation and reported on test.

    Its report: one image of each class, each taken for the class before it with a probability of 3/4 but for class 0,
    which is right.
    """
    names = [f"{source} {n}" for n in range(classes)]
    record = run_record(0.5, source)
    first, last = (replace(e, validation=Metrics(loss=1.0, error=e.reported.error, n=20)) for e in record.history)
    record = replace(
        record,
        recipe={"data": source, "training": {"epochs": 2, "best_by": "validation_error"}, "options": {source: source}},
        history=[replace(first, test=None), last],
        chosen_by="validation",
        data={"source": source, "shape": [1, 2, 2], "classes": names, "encoding": "lossless", "sha256": "0" * 64},
    )
    return record, ClassificationReport(
        split="test",
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
        most_confident_errors=[
            Mistake(sample=n, name=f"{source}/{n}.png", true=n, predicted=n - 1, probability=0.75, image=PNG)
            for n in range(1, min(classes, 25))
        ],
    )


def block_statistics(number: int, plain: bool = False, **changes) -> BlockStatistics:
    """A block whose branch is half as large as its shortcut, with gradients in the ratio 3 to 1."""
    given = {
        "block": f"stages.0.{number}",
        "input_norm": 2.0,
        "branch_norm": 1.0,
        "shortcut_norm": None if plain else 2.0,
        "ratio": 0.5,
        "responses": [1.0, 2.0 if plain else 1.5],
        "cosine": 0.9,
        "dead": 0.0,
        "zeros": 0.5,
        "input_rms": 1.0,
        "output_rms": 1.0,
        "gradient_in": 4.0,
        "gradient_branch": 1.0,
        "gradient_shortcut": None if plain else 3.0,
        "gradient_out": 4.0,
        "gradient_in_rms": 1.0,
        "gradient_out_rms": 1.0,
    }
    return BlockStatistics(**(given | changes))


def shattering_result(*means: float | None, error: float = 0.01) -> ShatteringResult:
    """Blocks with those cosines at the distance of the verdict, and a tenth less at another."""
    blocks = [
        BlockCosines(
            block=f"stages.0.{n}",
            means=[mean, None if mean is None else mean - 0.1],
            errors=[None if mean is None else error] * 2,
        )
        for n, mean in enumerate(means)
    ]
    return ShatteringResult(n=32, distances=[0.01, 0.1], blocks=blocks)


def rank_result(*ranks: float | None) -> RankResult:
    """Blocks of those effective ranks, and half of them as stable ones."""
    blocks = [
        BlockRank(block=f"stages.0.{n}", effective=rank, stable=None if rank is None else rank / 2, common=0.5)
        for n, rank in enumerate(ranks)
    ]
    return RankResult(n=32, blocks=blocks)


def agreement_result(*means: float | None) -> AgreementResult:
    """Blocks with those cosines; the first is that over all weights too."""
    blocks = [
        BlockAgreement(block=f"stages.0.{n}", mean=mean, least=None if mean is None else mean - 0.1)
        for n, mean in enumerate(means)
    ]
    return AgreementResult(n=32, batches=4, whole=replace(blocks[0], block="all weights"), blocks=blocks)


def step_result(*changes: float | None) -> StepResult:
    """Blocks with those changes; the first is that over all weights too."""
    blocks = {f"stages.0.{n}": change for n, change in enumerate(changes)}
    return StepResult(n=32, optimizer="sgd", lr=0.1, assumed=False, whole=changes[0], blocks=blocks)


def lesion_result(*errors: float, intact: float = 0.1) -> LesionResult:
    """A net of that error, with those errors without each block; by chance nine of ten answers are wrong."""
    return LesionResult(
        n=50,
        chance=0.9,
        intact=Lesion(blocks=[], error=intact, loss=1.0),
        dropped=[Lesion(blocks=[f"stages.0.{n}"], error=error, loss=None) for n, error in enumerate(errors)],
        several=[Lesion(blocks=["stages.0.0", "stages.0.1"], error=0.8, loss=1.0)],
        swapped=[Lesion(blocks=["stages.0.0", "stages.0.1"], error=0.2, loss=1.0)],
        fixed=["stages.1.0"],
    )


def path_result(blocks: int = 6, known: bool = True) -> PathResult:
    """Every path carries half of what one that is a branch shorter does."""
    shares = [comb(blocks, k) * 0.5**k / 1.5**blocks for k in range(blocks + 1)]
    return PathResult(
        seed=0,
        n=32,
        blocks=blocks,
        lengths=[
            PathLength(length=k, paths=k % 2, log_magnitude=-0.3 * k if known else None, share=share if known else None)
            for k, share in enumerate(shares)
        ],
        mean=blocks / 3 if known else None,
        low=0 if known else None,
        high=4 if known else None,
    )


def landscape_result(side: int = 5, scale: float = 1.0) -> LandscapeResult:
    """A bowl."""
    axis = [step / (side // 2) for step in range(-(side // 2), side // 2 + 1)]
    return LandscapeResult(
        seed=0,
        n=1000,
        axis=axis,
        losses=[[scale * (0.1 + a * a + b * b) for a in axis] for b in axis],
        centre=0.1 * scale,
        guess=2.3,
        flat=0.25,
        convex=1.0,
    )


def cam_result(sample: int = 3, true: str = "zero", predicted: str | None = "zero", warm: int = 4) -> CamResult:
    """A map of 4 × 4 cells, of which so many are warm; 0 is no heat at all. No answer has no number."""
    heats = [None if predicted is None else 1.0 if n < warm else 0.25 * bool(warm) for n in range(16)]
    return CamResult(
        sample=sample,
        true=true,
        predicted=predicted,
        probability=None if predicted is None else 0.75,
        heat=[heats[4 * row : 4 * row + 4] for row in range(4)],
        image=PNG,
    )


def net_result(source: str = "made", *, plain: bool = False, state: str = "after 2 epochs") -> NetResult:
    """A net of three blocks with even gradients, and of six to the paths that a plain one has not."""
    trained = state != "at initialisation"
    gradients = [BlockGradient(block=f"stages.0.{n}", gradient_norm=1.0, weight_norm=1.0) for n in range(3)]
    return NetResult(
        model=f"{'plain' if plain else 'resnet'} {source}",
        state=state,
        parameters=1000,
        plain=plain,
        gradients=gradients,
        flow=flow.judge(gradients),
        blocks=[block_statistics(n, plain) for n in range(3)],
        shattering=shattering_result(*((0.01, 0.1, 0.4) if plain else (0.6, 0.7, 0.9))),
        rank=rank_result(20.0, 18.0, 9.0),
        agreement=agreement_result(0.2, -0.1, 0.4),
        step=step_result(0.5, 0.02, 0.01),
        lesion=lesion_result(0.9, 0.8, 0.9) if plain else lesion_result(0.1, 0.12, 0.2),
        paths=None if plain else path_result(),
        landscape=landscape_result(scale=50.0 if plain else 1.0) if trained else None,
        cams=[cam_result(0, source, source), cam_result(7, "b", source, 12)] if trained else [],
    )


def diagnosis(source: str = "made") -> Diagnosis:
    """A diagnosis of every analysis, with a plain counterpart, and names after ``source``."""
    own = {"blocks": "3", "kind": "residual", "norm": source, "start": "He"}
    settings = [
        SettingResult(setting=own, blocks=3, forward=3.0, backward=0.1, verdict="exploding"),
        SettingResult(setting=own | {"start": "zero"}, blocks=3, forward=0.0, backward=0.0, verdict="steady"),
        SettingResult(setting=own | {"kind": "plain"}, blocks=3, forward=None, backward=None, verdict="broken"),
    ]
    before, deeper, same = (Metrics(loss=1.0, error=error, n=50) for error in (0.1, 0.08, 0.09))
    identity = IdentityResult(stage=0, added=2, blocks=5, equal=True, epochs=1, before=before, deeper=deeper, same=same)
    return explained(
        Diagnosis(
            source=source,
            command=f"resnetlab diagnose {source}",
            batch=32,
            net=replace(net_result(source), signal=SignalResult(own=own, settings=settings), identity=identity),
            initial=net_result(source, state="at initialisation"),
            plain=net_result(source, plain=True),
            findings=[],
            notes=[f"note {source}"],
            data={"source": source, "classes": [source, "b"]},
            environment={"processor": source},
            seconds=1.0,
        )
    )


def explained(found: Diagnosis) -> Diagnosis:
    """The diagnosis with the findings of every analysis."""
    from resnetlab.diagnostics.diagnose import analysis

    return replace(found, findings=[analysis(name).explain(found) for name in ANALYSES])


def run_result(values: dict[str, str], seed: int, *costs: float, source: str = "made") -> RunResult:
    """A run whose test error rises by ``costs`` without each of its blocks, and whose gradient grows by the seed."""
    plain = values.get("kind") == "plain"
    lesion = lesion_result(*(0.1 + cost for cost in costs))
    net = replace(net_result(source, plain=plain), lesion=lesion)
    return RunResult(values=values, seed=seed, flow_start=Flow(growth=float(seed), verdict="healthy"), net=net)


def study_diagnosis(source: str = "made") -> StudyDiagnosis:
    """A diagnosis of a study of two kinds, two depths and three seeds, with names after ``source``."""
    from resnetlab.study import diagnosis_statistics as seedwise

    axes = {"kind": ["plain", "residual"], "depth": ["20", source]}
    worth = {"plain": 0.7, "residual": 0.02}
    runs = [
        run_result({"kind": kind, "depth": depth}, seed, cost, cost + 0.01 * seed, source=source)
        for seed in range(3)
        for depth in axes["depth"]
        for kind, cost in worth.items()
    ]
    measures = seedwise.measures_of(["gradients", "residuals", "lesion"])
    return StudyDiagnosis(
        command=f"resnetlab diagnose {source}",
        study=f"resnetlab study --data {source}",
        axes=axes,
        measures=measures,
        batch=32,
        images=50,
        runs=runs,
        left_out=[f"plain-{source}-seed3: diverged"],
        conditions=seedwise.combine(runs, measures),
        contrasts=seedwise.contrast(runs, axes, ["kind"], measures),
        rules=[*seedwise.RULES],
        data={"source": source, "classes": [source, "b"]},
        environment={"torch": "1", "processor": source},
        seconds=2.0,
    )
