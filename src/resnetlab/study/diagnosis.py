"""A diagnosis of every trained network of a study, with its statistics over the seeds.

Its folder holds ``study-diagnosis.json``, from which everything that is printed and drawn is made, and ``report.html``.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from resnetlab.core.config import command_of
from resnetlab.core.environment import describe_environment
from resnetlab.core.errors import CheckpointError, ConfigError, DataError, unknown_name
from resnetlab.core.serialize import as_plain, write_record
from resnetlab.diagnostics.config import DiagnosisConfig
from resnetlab.diagnostics.load import Subject, from_run
from resnetlab.diagnostics.soundings import Progress, first_images, read_net, unwatched
from resnetlab.records.diagnosis import DIAGNOSIS, Part
from resnetlab.records.run import RunRecord
from resnetlab.records.study import axes_in_words
from resnetlab.records.study_diagnosis import STUDY_DIAGNOSIS, RunReading, StudyDiagnosis
from resnetlab.study import open_study, plan_runs, study_command
from resnetlab.study.plan import PlannedRun, read_ended
from resnetlab.study.statistics import compared_axes

if TYPE_CHECKING:
    import torch

PARTS: tuple[Part, ...] = ("gradients", "residuals", "lesion")
"""The parts that tell something of a trained network alone; what ``all`` stands for here."""
SHARED = ("what", "checkpoint", "batch_size", "images", "seed", "device")
"""The settings of a diagnosis that hold for the runs of a study; the others are theirs, or those of one network."""

Where = Mapping[str, Sequence[str]]


def diagnose_study(
    folder: Path,
    config: DiagnosisConfig,
    where: Where | None = None,
    progress: Progress | None = None,
    on_run: Callable[[PlannedRun, int, int], None] | None = None,
) -> StudyDiagnosis:
    """What every trained network of the study in ``folder`` is like, each read from the same images in the same way.

    ``where`` chooses runs by the values of axes: ``{"depth": ["20"]}``. ``on_run`` hears of every run, counted from 1,
    before it is read. Runs that have not ended, diverged or are damaged are left out, and said so.

    Raises ``ConfigError`` for a setting of single networks and an axis that the study does not have, ``DataError``
    where the folder holds no study, or no run of it can be read.
    """
    import torch

    from resnetlab.study import diagnosis_statistics as seedwise
    from resnetlab.train.prepare import pick_device

    started = perf_counter()
    parts = study_parts(config)
    study = open_study(folder)
    axes = axes_in_words(study.axes)
    chosen = choose(plan_runs(study), axes, where or {}, folder)
    device = pick_device(config.device)
    runs, left_out, data = read_runs(chosen, folder, parts, config, device, progress or unwatched, on_run)
    if not runs:
        raise DataError(f"no run of the study in {folder} can be diagnosed: {'; '.join(left_out)}")
    measures = seedwise.measures_of(parts)
    return StudyDiagnosis(
        command=study_diagnosis_command(folder, config, where or {}),
        study=study_command(study),
        axes=axes,
        measures=measures,
        batch=config.batch_size,
        pictures=config.images,
        runs=runs,
        left_out=left_out,
        combinations=seedwise.combine(runs, measures),
        contrasts=seedwise.contrast(
            runs, axes, [name for name in axes if name != "depth" or "depth" in compared_axes(study.axes)], measures
        ),
        rules=[*seedwise.RULES],
        data=data,
        environment=describe_environment(str(device), torch.get_num_threads()),
        seconds=perf_counter() - started,
    )


def study_parts(config: DiagnosisConfig) -> list[Part]:
    """The parts that were asked for. Raises ``ConfigError`` for one, or a setting, that is of single networks only."""
    plain, default = as_plain(config), as_plain(DiagnosisConfig())
    alien = [name for name, value in plain.items() if name not in SHARED and value != default[name]]
    if alien:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in alien)
        raise ConfigError(f"{names} is not possible for a study: its runs have their own; leave it out")
    wrong = [part for part in config.what if part not in ("all", *PARTS)]
    if wrong:
        raise ConfigError(
            f"--what {wrong[0]} is not possible for a study, only {', '.join(PARTS)}; diagnose one of its runs for more"
        )
    return [part for part in PARTS if part in config.what or "all" in config.what]


def choose(planned: list[PlannedRun], axes: dict[str, list[str]], where: Where, folder: Path) -> list[PlannedRun]:
    """The runs with those values. Raises ``ConfigError`` for an axis or a value that the study does not have."""
    for axis, values in where.items():
        if axis not in axes:
            raise unknown_name("axis", axis, axes)
        for value in values:
            if value not in axes[axis]:
                known = ", ".join(axes[axis])
                raise ConfigError(f"the study in {folder} has no {axis} {value}; it has {known}")
    return [run for run in planned if all(run.words[axis] in values for axis, values in where.items())]


def read_runs(
    chosen: list[PlannedRun],
    folder: Path,
    parts: list[Part],
    config: DiagnosisConfig,
    device: "torch.device",
    progress: Progress,
    on_run: Callable[[PlannedRun, int, int], None] | None,
) -> tuple[list[RunReading], list[str], dict[str, Any]]:
    """The readings of the runs, what was left out and why, and what the data of the runs were."""
    runs: list[RunReading] = []
    left_out: list[str] = []
    data: dict[str, Any] = {}
    for number, run in enumerate(chosen, start=1):
        record = read_ended(run, folder) if run.has_ended(folder) else None
        if record is None or not record.final:
            left_out.append(f"{run.name}: {'diverged' if record else 'has not ended'}")
            continue
        if on_run:
            on_run(run, number, len(chosen))
        try:
            subject = from_run(run.folder(folder), config.checkpoint)
        except CheckpointError as error:
            left_out.append(f"{run.name}: {error}")
            continue
        data = subject.data.fingerprint
        runs.append(read_run(run, record, subject, parts, config, device, progress))
        if "lesion" in parts and runs[-1].net.lesion is None:
            left_out.append(f"lesion of {run.name}: each of its blocks changes the shape of its input, or is alone")
    return runs, left_out, data


def read_run(
    run: PlannedRun,
    record: RunRecord,
    subject: Subject,
    parts: list[Part],
    config: DiagnosisConfig,
    device: "torch.device",
    progress: Progress,
) -> RunReading:
    """The reading of one run; lesions are left out where no block can be dropped."""
    from resnetlab.records import gradients as flow

    subject.net.to(device)
    batch = first_images(subject.data, config.batch_size, config.seed, device)
    return RunReading(
        values=run.words,
        seed=run.seed,
        flow_start=flow.judge(record.gradients_start),
        net=read_net(subject, parts, batch, seed=config.seed, images=config.images, progress=progress),
    )


def study_diagnosis_command(folder: Path, config: DiagnosisConfig, where: Where) -> str:
    """The command that makes this diagnosis, with every setting that is not the default."""
    plain = {name: value for name, value in as_plain(config).items() if name in SHARED}
    default = {name: value for name, value in as_plain(DiagnosisConfig()).items() if name in SHARED}
    words = [word for axis, values in where.items() for word in ("--where", f"{axis}={','.join(values)}")]
    command = command_of("diagnose", "DIAGNOSIS", plain, default, words)
    return command.replace("resnetlab diagnose", f"resnetlab diagnose {shlex.quote(str(folder))}", 1)


def write_study_diagnosis(diagnosis: StudyDiagnosis, out: Path) -> Path:
    """Write the record and its page to ``out``; the path of the page."""
    from resnetlab.report.study_diagnosis.page import write_study_diagnosis_report

    write_record(out / STUDY_DIAGNOSIS, diagnosis)
    # As ``write_diagnosis`` does with a study's.
    (out / DIAGNOSIS).unlink(missing_ok=True)
    return write_study_diagnosis_report(diagnosis, out)


def read_where(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Axes and values from texts such as ``depth=20,56``. Raises ``ConfigError`` for a text of another form."""
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            raise ConfigError(f"--where {text!r} is not possible: it must be AXIS=VALUE,VALUE, such as depth=20,56")
        if name in found:
            raise ConfigError(f"--where {name} stands twice; give all its values at once, --where {name}=A,B")
        found[name] = tuple(value.strip() for value in values.split(","))
    return found
