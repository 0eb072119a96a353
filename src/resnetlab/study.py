"""A paired depth study: plain and residual nets, depth by depth and seed by seed, with nothing else between them.

A study folder holds ``study.json`` (its settings), ``runs/<run>/`` (each an ordinary run folder), ``results.json`` and
the page. Each run is recorded when it ends; a study that was interrupted goes on where it stood.
"""

from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from resnetlab.data.config import AugmentConfig, DecodeConfig
from resnetlab.diagnostics import degradation, flow
from resnetlab.errors import ConfigError, DataError, require, require_choice
from resnetlab.files import folder_lock, is_vacant, read_json, write_json
from resnetlab.recipe import Recipe, ShortcutChoice, differences, fitted_config
from resnetlab.records import RunRecord, StudyRecord, StudyRun, as_plain, from_plain, read_record, write_record
from resnetlab.report.command import command_of
from resnetlab.run import RECORD, claim_data, run_recipe
from resnetlab.train.config import TrainConfig
from resnetlab.train.logs import Silent, Watcher

if TYPE_CHECKING:
    from resnetlab.data.arrays import ImageData
    from resnetlab.train.stopping import StopRequest

STUDY, RUNS, RESULTS = "study.json", "runs", "results.json"

Kind = Literal["plain", "residual"]
Family = Literal["cifar", "imagenet", "mlp"]

NAMES = {"cifar": "cifar_{kind}{depth}", "imagenet": "{kind}{depth}", "mlp": "mlp_{kind}{depth}"}
WORDS = {"plain": "plain", "residual": "resnet"}
RESIDUAL_ONLY = ("zero_init_residual", "scale_residual")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The grid of a study: kinds × depths × seeds, all else equal.

    Raises ``ConfigError`` for values that make no study.
    """

    family: Family = "cifar"
    """Networks to compare: cifar_*, imagenet (plain18 … resnet34) or mlp_*."""
    depths: tuple[int, ...] = (8, 20, 56)
    """Weight layers."""
    kinds: tuple[Kind, ...] = ("plain", "residual")
    """Nets without and with shortcuts."""
    seeds: int = 3
    """Runs of each net, with the seeds 0, 1, …; plain and residual are paired by seed."""
    shortcut: Literal["default", "A", "B", "C"] = "default"
    """Shortcut option of the residual nets; default is the paper's for the family."""
    options: dict[str, str] = field(default_factory=dict)
    """Further settings of all networks, such as norm layer (zero_init_residual and scale_residual: residual only)."""
    data: str = "digits"
    """digits, a folder of pictures, or another source, as for train."""
    split_seed: int = 0
    """Decides the split of data that comes without one."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """How encoded pictures become arrays."""
    training: TrainConfig = field(default_factory=lambda: TrainConfig(augment=AugmentConfig(crop_padding=0)))
    """How each net is trained."""

    def __post_init__(self) -> None:
        require_choice("family", self.family, NAMES)
        for name, values in (("depths", self.depths), ("kinds", self.kinds)):
            require(0 < len(values) == len(set(values)), name, values, "one or more, all different")
        for kind in self.kinds:
            require_choice("kind", kind, WORDS)
        require(1 <= self.seeds <= 1000, "seeds", self.seeds, "from 1 to 1000")
        for key in self.options.keys() & {"depth", "depths"}:
            raise ConfigError(f"option {key} would undo the depths of the study; name depths with --depths")
        require_choice("shortcut", self.shortcut, ("default", "A", "B", "C"))


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One place of the grid and the recipe that fills it."""

    kind: Kind
    depth: int
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.depth}-seed{self.seed}"


class StudyWatcher(Protocol):
    """What a study tells while it runs."""

    def on_run_start(self, run: PlannedRun, number: int, total: int) -> Watcher:
        """Run ``number`` of ``total``, counted from 1, begins; the answer watches it."""

    def on_run_end(self, run: PlannedRun, record: RunRecord) -> None:
        """The run is recorded."""


class Unwatched:
    """A watcher of studies that does nothing."""

    def on_run_start(self, run: PlannedRun, number: int, total: int) -> Watcher:  # noqa: ARG002
        return Silent()

    def on_run_end(self, run: PlannedRun, record: RunRecord) -> None:
        pass


def run_study(
    config: StudyConfig, out: Path, watcher: StudyWatcher | None = None, stop: "StopRequest | None" = None
) -> StudyRecord:
    """Do every run of the grid that is not recorded yet, then write ``results.json`` and return what it says.

    Raises ``ConfigError`` where ``out`` holds a study of other settings, or a depth that the family does not have,
    ``StoppedError`` where ``stop`` asked for it.
    """
    watcher = watcher or Unwatched()
    planned = plan_runs(config)
    claim_folder(config, out)
    data = check_runs(config, planned)
    with folder_lock(out):
        # Another process may have taken the folder since.
        claim_folder(config, out)
        write_json(out / STUDY, as_plain(config))
        claim_data(data, out)
        for run in planned:
            if (out / RUNS / run.name / RECORD).is_file():
                read_run(run, out)  # what is damaged is better known now than hours later
        for number, run in enumerate(planned, start=1):
            folder = out / RUNS / run.name
            if not (folder / RECORD).is_file():
                inner = watcher.on_run_start(run, number, len(planned))
                record = run_recipe(run.recipe, folder, resume=True, watcher=inner, stop=stop, page=False)
                watcher.on_run_end(run, record)
        study = read_study(out)
        write_record(out / RESULTS, study)
    return study


def plan_runs(config: StudyConfig) -> list[PlannedRun]:
    """The grid, seed by seed, so that an interrupted study has every net of its first seeds."""
    return [
        PlannedRun(kind=kind, depth=depth, seed=seed, recipe=make_recipe(config, kind, depth, seed))
        for seed, depth, kind in product(range(config.seeds), sorted(config.depths), config.kinds)
    ]


def make_recipe(config: StudyConfig, kind: Kind, depth: int, seed: int) -> Recipe:
    """The recipe of one place in the grid; a plain one differs from its residual twin in the name alone.

    The one exception are settings that start a branch near zero: a plain net has no identity to start from.
    """
    shortcut: ShortcutChoice = config.shortcut if kind == "residual" else "default"
    options = {key: text for key, text in config.options.items() if kind == "residual" or key not in RESIDUAL_ONLY}
    return Recipe(
        model=NAMES[config.family].format(kind=WORDS[kind], depth=depth),
        shortcut=shortcut,
        options=options,
        data=config.data,
        split_seed=config.split_seed,
        decode=config.decode,
        seed=seed,
        training=config.training,
    )


def read_study(out: Path) -> StudyRecord:
    """The study in ``out`` as far as it has come, from its records alone.

    Raises ``DataError`` where the folder holds no study, or none of its runs has ended.
    """
    config = read_config(out)
    planned = plan_runs(config)
    runs = [read_run(run, out) for run in planned if (out / RUNS / run.name / RECORD).is_file()]
    if not runs:
        raise DataError(f"no run of the study in {out} has ended yet; run it again to go on")
    return StudyRecord(
        settings=as_plain(config),
        command=study_command(config),
        rules={"degradation": degradation.RULE, "gradients": flow.RULE},
        planned=len(planned),
        runs=runs,
        cells=degradation.make_cells(runs),
        pairs=degradation.make_pairs(runs),
        verdicts=degradation.make_verdicts(runs),
    )


def read_config(out: Path) -> StudyConfig:
    """The settings of the study in ``out``. Raises ``DataError`` where it holds none."""
    if not (out / STUDY).is_file():
        raise DataError(f"{out} holds no study (it has no {STUDY})")
    plain = read_json(out / STUDY)
    if not plain:
        raise DataError(f"{out / STUDY} is empty; it was damaged")
    return from_plain(StudyConfig, plain, str(out / STUDY))


def read_run(run: PlannedRun, out: Path) -> StudyRun:
    """The record of a run that has ended, and the verdicts on its gradients.

    Raises ``DataError`` where it is damaged, or that of another run.
    """
    path = out / RUNS / run.name / RECORD
    try:
        record = read_record(RunRecord, path)
        if record.recipe != as_plain(run.recipe):
            raise DataError(f"{path} is the record of another run")
    except DataError as error:
        raise DataError(f"{error}; delete the file, and the study makes it again from the run's checkpoint") from error
    return StudyRun(
        kind=run.kind,
        depth=run.depth,
        seed=run.seed,
        flow_start=flow.judge(record.gradients_start),
        flow_end=flow.judge(record.gradients_end),
        record=record,
    )


def study_command(config: StudyConfig) -> str:
    """The command that makes this study, with every setting that is not the default."""
    return command_of("study", "STUDY", as_plain(config), as_plain(StudyConfig()))


def check_runs(config: StudyConfig, planned: list[PlannedRun]) -> "ImageData":
    """The data of the study, when all that can be wrong with it, the device or a net of the grid is known to be right.

    Raises what the first run, or one hours later, would raise.
    """
    from resnetlab.data.sources import load_data
    from resnetlab.models.init import build
    from resnetlab.train.prepare import pick_device

    data = load_data(config.data, config.split_seed, config.decode)
    pick_device(config.training.device)
    for run in planned:
        if run.seed == 0:
            build(fitted_config(run.recipe, data), seed=0, device="meta")
    return data


def claim_folder(config: StudyConfig, out: Path) -> None:
    """Raise ``ConfigError`` unless ``out`` is vacant, or holds this study, with as many seeds or fewer."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; give a folder for the study")
    if (out / STUDY).is_file():
        before = read_config(out)
        # More seeds only add runs; all else would mix two studies.
        more = replace(before, seeds=max(before.seeds, config.seeds))
        changed = differences(as_plain(before), as_plain(config)) if more != config else []
        if changed:
            raise ConfigError(
                f"{out} holds a study with other settings: {', '.join(changed)}; "
                "give the same settings or another folder"
            )
    elif not is_vacant(out):
        raise ConfigError(f"{out} is not empty and holds no study; choose another folder")
