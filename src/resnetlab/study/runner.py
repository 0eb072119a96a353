"""A study is run: every run that is not recorded yet is done, by one worker or by several, and the results written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, overload

from resnetlab.core.errors import ConfigError, ResNetLabError
from resnetlab.core.files import folder_lock, is_vacant, write_json
from resnetlab.core.serialize import as_plain, write_record
from resnetlab.records.study import Comparison, StudyRecord
from resnetlab.study.axes import AxesStudy
from resnetlab.study.claims import Claims, Everything, StoreClaims
from resnetlab.study.grid import StudyConfig
from resnetlab.study.plan import RESULTS, STUDY, NoStudyCallback, PlannedRun, StudyCallback, read_ended
from resnetlab.study.reading import Study, plan_runs, read_config, read_study
from resnetlab.train.recipe import differences, fitted_config
from resnetlab.train.run import DATA, check_data, claim_data, run_recipe

if TYPE_CHECKING:
    from resnetlab.data.dataset import ImageData
    from resnetlab.train.signals import StopRequest

LOOK_EVERY = 0.5
"""Seconds between two looks at what the other workers have done."""


@overload
def run_study(
    config: StudyConfig, out: Path, callback: StudyCallback | None = None, stop: "StopRequest | None" = None
) -> StudyRecord: ...


@overload
def run_study(
    config: AxesStudy, out: Path, callback: StudyCallback | None = None, stop: "StopRequest | None" = None
) -> Comparison: ...


def run_study(
    config: Study, out: Path, callback: StudyCallback | None = None, stop: "StopRequest | None" = None
) -> StudyRecord | Comparison:
    """Do every run of the study that is not recorded yet, then write ``results.json`` and return what it says.

    Under torchrun the ranks share the runs, each of which one rank trains alone; the leading rank writes the results.
    On several machines ``out`` must be a folder that all of them see.

    Raises ``ConfigError`` where ``out`` holds a study of other settings, or a network that does not exist,
    ``StoppedError`` where ``stop`` asked for it.
    """
    from resnetlab.train.distributed import started_as

    leads = started_as().leads
    planned = plan_runs(config)
    if leads:
        claim_folder(config, out)
    data = check_runs(planned)
    with _begun(config, data, out, leads), _claims(config) as claims:
        _work_off(planned, out, claims, callback or NoStudyCallback(), stop)
        study = read_study(out)
        if leads:
            write_record(out / RESULTS, study)
    return study


@contextmanager
def _begun(config: Study, data: "ImageData", out: Path, leads: bool) -> Iterator[None]:
    """Hold the folder, with settings and data noted in it; ranks that do not lead wait until that is done."""
    if not leads:
        _await_settings(config, out)
        check_data(data, out)
        yield
        return
    with folder_lock(out):
        # Another process may have taken the folder since.
        claim_folder(config, out)
        write_json(out / STUDY, as_plain(config))
        claim_data(data, out)
        yield


def _await_settings(config: Study, out: Path) -> None:
    from resnetlab.train.distributed import PATIENCE

    deadline = monotonic() + PATIENCE.total_seconds()
    while not ((out / STUDY).is_file() and (out / DATA).is_file() and read_config(out) == config):
        if monotonic() > deadline:
            raise ResNetLabError(
                f"the leading process has not begun the study in {out}; all of them must see the same folder"
            )
        sleep(LOOK_EVERY)


@contextmanager
def _claims(config: Study) -> Iterator[Claims]:
    """What decides which runs this worker does; on cuda it takes the device of its local rank."""
    from resnetlab.train.distributed import open_store, started_by_torchrun, take_device

    if not started_by_torchrun():
        yield Everything()
        return
    training = config.training if isinstance(config, StudyConfig) else config.recipe.training
    take_device(training.device)
    with StoreClaims(open_store()) as claims:
        yield claims


def _work_off(
    planned: Sequence[PlannedRun], out: Path, claims: Claims, callback: StudyCallback, stop: "StopRequest | None"
) -> None:
    """Do the runs that are ours to do until all are recorded, those of other workers too."""
    # What is damaged is better known now than hours later.
    callback.on_plan(planned, {run.name: read_ended(run, out) for run in planned if run.has_ended(out)})
    left = [(number, run) for number, run in enumerate(planned, start=1) if not run.has_ended(out)]
    while left:
        others = []
        for number, run in left:
            if run.has_ended(out):
                callback.on_found(run, number, len(planned), read_ended(run, out))
            elif _is_ours(run, out, claims):
                inner = callback.on_run_start(run, number, len(planned))
                folder = run.folder(out)
                record = run_recipe(run.recipe, folder, resume=True, callback=inner, stop=stop, page=False, alone=True)
                callback.on_run_end(run, record)
            else:
                others.append((number, run))
        left = others
        if left:
            sleep(LOOK_EVERY)


def _is_ours(run: PlannedRun, out: Path, claims: Claims) -> bool:
    try:
        return claims.take(run.name)
    except ResNetLabError:
        # The claims are gone when whoever holds them has ended, which may be because all is done.
        if run.has_ended(out):
            return False
        raise


def check_runs(planned: Sequence[PlannedRun]) -> "ImageData":
    """The data of the study, when all that can be wrong with them, the device or a net is known to be right.

    Raises what the first run, or one hours later, would raise.
    """
    from resnetlab.models.init import build
    from resnetlab.train.prepare import pick_device
    from resnetlab.train.recipe import recipe_data

    read: dict[tuple[object, ...], ImageData] = {}
    for run in planned:
        if run.seed != planned[0].seed:
            continue
        recipe = run.recipe
        pick_device(recipe.training.device)
        # Data that no axis changes are read once.
        source = (recipe.data, recipe.split_seed, recipe.decode, recipe.weights)
        if source not in read:
            read[source] = recipe_data(recipe)
        build(fitted_config(recipe, read[source]), seed=0, device="meta")
    return next(iter(read.values()))


def claim_folder(config: Study, out: Path) -> None:
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
