"""A study is run: every run that is not recorded yet is done, by one worker or by several, and the results written."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from resnetlab.core.errors import ConfigError, ResNetLabError, require
from resnetlab.core.files import folder_lock, read_json, write_json
from resnetlab.core.serialize import write_record
from resnetlab.records.study import StudyRecord
from resnetlab.study.config import Study, study_command, study_settings
from resnetlab.study.convert import convert_folder
from resnetlab.study.folder import claim_folder, is_former, moved_data, read_study
from resnetlab.study.plan import RESULTS, RUNS, STUDY, NoStudyCallback, PlannedRun, StudyCallback, plan_runs, read_ended
from resnetlab.study.workers import Claims, Everything, StoreClaims, end_with_starter, local_workers, one_thread
from resnetlab.train.folder import DATA, check_data, claim_data, data_places, run_data
from resnetlab.train.recipe import Recipe, fitted_config, recipe_data
from resnetlab.train.run import run_recipe

if TYPE_CHECKING:
    from resnetlab.data.dataset import ImageData
    from resnetlab.train.signals import StopRequest

MOST_PROCESSES = 1024
"""Processes of a study on one machine: guards against typing errors."""
LOOK_EVERY = 0.5
"""Seconds between two looks at what the other workers have done."""

DataKey = tuple[object, ...]


def run_study(
    study: Study,
    out: str | Path,
    callback: StudyCallback | None = None,
    stop: "StopRequest | None" = None,
    processes: int = 1,
) -> StudyRecord:
    """Do every run of the study that is not recorded yet, then write ``results.json`` and return what it says.

    Each run is trained by one process in one thread, so that no figure depends on the cores or on ``processes``: so
    many of them on this machine share the runs. Under torchrun its ranks do; on several machines ``out`` must be a
    folder that all of them see. The leading rank writes the results.

    Raises ``ConfigError`` where ``out`` holds a study of other settings, for a network that does not exist, or for
    ``processes`` under torchrun; ``StoppedError`` where ``stop`` asked for it.
    """
    from resnetlab.train.distributed import started_as

    check_processes(processes)
    out = Path(out)
    leads = started_as().leads
    given, (study, place) = study, moved_data(study, out)
    planned = plan_runs(study)
    if leads:
        claim_folder(study, out)
    sets = check_runs(planned, out, place)
    first = sets[data_key(planned[0].recipe)]
    with one_thread(), _begun(study, first, out, leads), _claims(given, out, min(processes, len(planned))) as claims:
        _work_off(planned, out, sets, claims, callback or NoStudyCallback(), stop)
        record = read_study(out)
        if leads:
            write_record(out / RESULTS, record)
    return record


@contextmanager
def _begun(study: Study, data: "ImageData", out: Path, leads: bool) -> Iterator[None]:
    """Hold the folder, with settings and data noted in it; ranks that do not lead wait until that is done.

    Both go again where the study fails before its first run has begun, so that the folder is free for another attempt.
    """
    if not leads:
        _await_settings(study, out)
        check_data(data, out)
        yield
        return
    with folder_lock(out):
        # Another process may have taken the folder since.
        held = claim_folder(study, out)
        if is_former(out):
            convert_folder(out)
        write_json(out / STUDY, study_settings(study))
        claim_data(data, out)
        try:
            yield
        except BaseException:
            if not held and not (out / RUNS).exists():
                for name in (DATA, STUDY):
                    (out / name).unlink(missing_ok=True)
            raise


def _await_settings(study: Study, out: Path) -> None:
    from resnetlab.train.distributed import PATIENCE

    deadline = monotonic() + PATIENCE.total_seconds()
    wanted = study_settings(study)
    while not ((out / STUDY).is_file() and (out / DATA).is_file() and read_json(out / STUDY) == wanted):
        if monotonic() > deadline:
            raise ResNetLabError(
                f"the leading process has not begun the study in {out}; all of them must see the same folder"
            )
        sleep(LOOK_EVERY)


@contextmanager
def _claims(study: Study, out: Path, processes: int) -> Iterator[Claims]:
    """What decides which runs this worker does; on cuda it takes the device of its local rank."""
    from resnetlab.train.distributed import open_store, started_by_torchrun, take_device

    if started_by_torchrun():
        end_with_starter()
        take_device(study.recipe.training.device)
        with StoreClaims(open_store()) as claims:
            yield claims
    elif processes > 1:
        words = shlex.split(study_command(study))[1:]
        words[words.index("STUDY")] = str(out)
        with local_workers(words, processes - 1) as store, StoreClaims(store) as claims:
            yield claims
    else:
        yield Everything()


def check_processes(processes: int) -> None:
    """Raise ``ConfigError`` for a number of processes that there cannot be."""
    from resnetlab.train.distributed import started_by_torchrun

    require(1 <= processes <= MOST_PROCESSES, "processes", processes, f"from 1 to {MOST_PROCESSES}")
    if processes > 1 and started_by_torchrun():
        raise ConfigError(
            f"processes={processes} is not possible under torchrun, whose processes share the runs; leave it out"
        )


def _work_off(
    planned: Sequence[PlannedRun],
    out: Path,
    sets: "Mapping[DataKey, ImageData]",
    claims: Claims,
    callback: StudyCallback,
    stop: "StopRequest | None",
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
                record = run_recipe(
                    run.recipe,
                    run.folder(out),
                    resume=True,
                    callback=inner,
                    stop=stop,
                    page=False,
                    alone=True,
                    data=sets[data_key(run.recipe)],
                )
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


def data_key(recipe: Recipe) -> DataKey:
    """Which data a run reads: those that no axis changes are read once."""
    return recipe.data, recipe.split_seed, recipe.validation, recipe.decode, recipe.weights


def check_runs(planned: Sequence[PlannedRun], out: Path, place: str | None = None) -> "dict[DataKey, ImageData]":
    """The data of the study in ``out``, when all that can be wrong with them, the device or a net is known to be right.

    A study that was begun finds them as its runs do (``train.folder.data_places``), or in ``place``. Raises what the
    first run, or one hours later, would raise.
    """
    from resnetlab.models.init import build
    from resnetlab.train.prepare import pick_device

    read: dict[DataKey, ImageData] = {}
    for run in planned:
        if run.seed != planned[0].seed:
            continue
        recipe = run.recipe
        pick_device(recipe.training.device)
        key = data_key(recipe)
        if key not in read:
            if (out / DATA).is_file():
                # Of the data of an axis, the folder holds the sum of the first alone.
                where = place if recipe.data == planned[0].recipe.data else data_places(out, recipe.data)[0]
                read[key] = run_data(out, recipe, where)
            else:
                read[key] = recipe_data(recipe)
        build(fitted_config(recipe, read[key]), seed=0, device="meta")
    return read
