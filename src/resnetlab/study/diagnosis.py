"""A diagnosis of every trained network of a study, with its statistics over the seeds.

Its folder holds ``study-diagnosis.json``, from which everything that is printed and drawn is made, and ``report.html``.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from resnetlab.core.config import command_of
from resnetlab.core.environment import describe_environment
from resnetlab.core.errors import CheckpointError, ConfigError, DataError, unknown_name
from resnetlab.core.files import folder_exists
from resnetlab.core.serialize import as_plain, write_record
from resnetlab.diagnostics.config import DiagnosisConfig
from resnetlab.diagnostics.context import Progress, context_of
from resnetlab.diagnostics.diagnose import measure_net
from resnetlab.diagnostics.load import load_run
from resnetlab.records import gradients as flow
from resnetlab.records.diagnosis import DIAGNOSIS, Analysis, SplitName
from resnetlab.records.study import axes_in_words
from resnetlab.records.study_diagnosis import STUDY_DIAGNOSIS, RunResult, StudyDiagnosis
from resnetlab.study import open_study, study_command
from resnetlab.study.plan import PlannedRun, read_ended
from resnetlab.study.statistics import compared_axes
from resnetlab.study.tuning import planned_runs
from resnetlab.train.folder import RECORD

if TYPE_CHECKING:
    import torch

ANALYSES: tuple[Analysis, ...] = ("gradients", "residuals", "lesion")
"""The analyses whose numbers can be compared over the seeds; what ``all`` stands for here."""
SHARED = ("what", "checkpoint", "data", "batch_size", "images", "seed", "device")
"""The settings of a diagnosis that hold for the runs of a study, ``data`` as the place where their own are now; the
others are theirs, or those of one network."""

Where = Mapping[str, Sequence[str]]
OnRun = Callable[[PlannedRun, int, int], None]


def diagnose_study(
    folder: Path,
    config: DiagnosisConfig,
    where: Where | None = None,
    progress: Progress | None = None,
    on_run: OnRun | None = None,
) -> StudyDiagnosis:
    """What every trained network of the study in ``folder`` is like, each measured on the same images in the same way.

    ``where`` chooses runs by the values of axes: ``{"depth": ["20"]}``. ``on_run`` is called before each run with the
    run, its number from 1 on, and how many there are. Runs that have not ended, diverged
    or are damaged are left out, and said so.

    Raises ``ConfigError`` for a setting of single networks and an axis that the study does not have, ``DataError``
    where the folder holds no study, or no run of it can be measured.
    """
    import torch

    from resnetlab.study import diagnosis_statistics
    from resnetlab.train.prepare import pick_device

    started = perf_counter()
    analyses = study_analyses(config)
    study = open_study(folder)
    axes = axes_in_words(study.axes)
    chosen = choose(planned_runs(study, folder), axes, where or {}, folder)
    device = pick_device(config.device)
    found = Collected(folder=folder, config=config, analyses=analyses, device=device, progress=progress)
    for number, run in enumerate(chosen, start=1):
        found.add(run, on_run and (lambda run=run, number=number: on_run(run, number, len(chosen))))
    if not found.runs:
        raise DataError(f"no run of the study in {folder} can be diagnosed: {'; '.join(found.left_out)}")
    measures = diagnosis_statistics.measures_of(analyses)
    compared = [name for name in axes if name != "depth" or "depth" in compared_axes(study.axes)]
    return StudyDiagnosis(
        command=study_diagnosis_command(folder, config, where or {}),
        study=study_command(study),
        axes=axes,
        measures=measures,
        split=found.split,
        batch=config.batch_size,
        images=config.images,
        runs=found.runs,
        left_out=found.left_out,
        conditions=diagnosis_statistics.combine(found.runs, measures),
        contrasts=diagnosis_statistics.contrast(found.runs, axes, compared, measures),
        rules=[*diagnosis_statistics.RULES],
        data=found.data,
        environment=describe_environment(str(device), torch.get_num_threads()),
        seconds=perf_counter() - started,
    )


@dataclass(kw_only=True)
class Collected:
    """What is measured of the runs of the study in ``folder``, what was left out and why, and what their data were."""

    folder: Path
    config: DiagnosisConfig
    analyses: list[Analysis]
    device: "torch.device"
    progress: Progress | None
    runs: list[RunResult] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    split: SplitName = "test"

    def add(self, run: PlannedRun, on_start: Callable[[], None] | None) -> None:
        """Measure a run; one that has not ended, diverged or is damaged is left out, and so is a lesion of a network
        none of whose blocks can be dropped."""
        from resnetlab.train.checkpoint_manager import LAST

        record = read_ended(run, self.folder) if run.has_ended(self.folder) else None
        if record is None or not record.final:
            self.left_out.append(f"{run.name}: {'diverged' if record else 'has not ended'}")
            return
        folder = run.folder(self.folder)
        if not folder_exists(folder / LAST):
            self.left_out.append(
                f"{run.name}: its weights were not kept; delete its {RECORD} and give the command of the study again, "
                "with --keep weights"
            )
            return
        if on_start:
            on_start()
        # Where validation chose nothing, the last epoch is the best.
        which = self.config.checkpoint if record.chosen_by else "last"
        try:
            net = load_run(folder, which, place=self.config.data).to(self.device)
        except CheckpointError as error:
            self.left_out.append(f"{run.name}: {error}")
            return
        self.data, self.split = net.data.fingerprint, net.data.reported_split
        result = measure_net(net, context_of(net, self.config, self.progress), self.analyses)
        start = flow.judge(record.gradients_start)
        self.runs.append(RunResult(values=run.words, seed=run.seed, flow_start=start, net=result))
        if "lesion" in self.analyses and result.lesion is None:
            self.left_out.append(
                f"lesion of {run.name}: each of its blocks changes the shape of its input, or is alone"
            )


def study_analyses(config: DiagnosisConfig) -> list[Analysis]:
    """What was asked for. Raises ``ConfigError`` for an analysis, or a setting, of single networks only."""
    plain, default = as_plain(config), as_plain(DiagnosisConfig())
    alien = [name for name, value in plain.items() if name not in SHARED and value != default[name]]
    if alien:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in alien)
        raise ConfigError(f"{names} is not possible for a study: its runs have their own; leave it out")
    wrong = [name for name in config.what if name not in ("all", *ANALYSES)]
    if wrong:
        raise ConfigError(
            f"--what {wrong[0]} is not possible for a study, only {', '.join(ANALYSES)}; diagnose one of its runs for "
            "more"
        )
    return [name for name in ANALYSES if name in config.what or "all" in config.what]


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


def study_diagnosis_command(folder: Path, config: DiagnosisConfig, where: Where) -> str:
    """The command that reproduces this diagnosis, with every setting that is not the default."""
    plain = {name: value for name, value in as_plain(config).items() if name in SHARED}
    default = {name: value for name, value in as_plain(DiagnosisConfig()).items() if name in SHARED}
    words = [word for axis, values in where.items() for word in ("--where", f"{axis}={','.join(values)}")]
    command = command_of("diagnose", "DIAGNOSIS", plain, default, words)
    return command.replace("resnetlab diagnose", f"resnetlab diagnose {shlex.quote(str(folder))}", 1)


def write_study_diagnosis(diagnosis: StudyDiagnosis, out: Path) -> Path:
    """Write the record and its page to ``out``; the path of the page."""
    from resnetlab.report.study.diagnosis import write_study_diagnosis_report

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
