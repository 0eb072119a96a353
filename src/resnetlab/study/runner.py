"""A study is run: every run that is not recorded yet is done, by one worker or by several, and the results written."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from resnetlab.core.errors import BusyError, listed, require
from resnetlab.core.files import write_json
from resnetlab.core.lock import folder_lock
from resnetlab.core.serialize import write_record
from resnetlab.records.study import StudyRecord
from resnetlab.study.cluster import check_ray
from resnetlab.study.config import Study, study_command, study_settings
from resnetlab.study.convert import convert_folder
from resnetlab.study.driver import work_off_on_ray
from resnetlab.study.folder import claim_folder, is_former, moved_data, read_config, read_study
from resnetlab.study.keep import Keep, keep_of
from resnetlab.study.plan import (
    RESULTS,
    RUNS,
    STUDY,
    DataKey,
    NoStudyCallback,
    PlannedRun,
    StudyCallback,
    Work,
    data_key,
    plan_runs,
    plan_tuning,
    read_ended,
)
from resnetlab.study.tuning import TUNING, planned_runs, read_tuning
from resnetlab.study.workers import (
    Workers,
    check_workers,
    count_workers,
    end_with_starter,
    is_helper,
    local_workers,
    one_thread,
)
from resnetlab.train.folder import DATA, claim_data, data_places, run_data
from resnetlab.train.recipe import fitted_config, recipe_data
from resnetlab.train.run import run_recipe

if TYPE_CHECKING:
    from resnetlab.data.dataset import ImageData
    from resnetlab.train.signals import StopRequest

LOOK_EVERY = 0.5
"""Seconds between two looks at what the other workers have done."""
TELL_AFTER = 10.0
"""Seconds of waiting for runs of other processes after which it is said which."""
PATIENCE = 60.0
"""Seconds for which another process may hold the folder of the study, to begin it."""


def run_study(
    study: Study,
    out: str | Path,
    callback: StudyCallback | None = None,
    stop: "StopRequest | None" = None,
    workers: Workers = 1,
    keep: Keep = "weights",
    ray: str | None = None,
) -> StudyRecord:
    """Do every run of the study that is not recorded yet, then write ``results.json`` and return what it says.

    Each run is trained by one process in one thread, so that no figure depends on the cores or on ``workers``: so many
    of them on this machine share the runs, or with ``auto`` one a core. Whoever calls this for the same study in the
    same folder shares them too, in another terminal, under torchrun or on another machine that sees the folder.
    ``keep`` is what a run keeps of its checkpoints once it has ended (``keep_of``). With ``ray``, the address of a
    cluster or ``local``, each run is a task of Ray instead, in one thread as well (``work_off_on_ray``).

    Raises ``ConfigError`` where ``out`` holds a study of other settings, or for a network that does not exist;
    ``StoppedError`` where ``stop`` asked for it; ``AddressError`` where no Ray answers, ``MissingExtraError`` without
    it.
    """
    check_workers(workers)
    if ray is not None:
        require(workers == 1, "workers", workers, "left out with ray, which decides how many runs go on at a time")
        check_ray(ray)
    out, callback = Path(out), callback or NoStudyCallback()
    given, (study, place) = study, moved_data(study, out)
    tuned = plan_tuning(study)
    # The runs that tune have every recipe of those that judge, but for the seeds.
    planned = tuned or plan_runs(study)
    claim_folder(study, out)
    sets = check_runs(planned, out, place, here=ray is None)
    first = sets[data_key(planned[0].recipe)]
    flags = ["--workers", "1", "--keep", keep]
    work = Work(planned=planned, out=out, sets=sets, place=place, callback=callback, stop=stop, keep=keep)
    with one_thread(), _begun(study, first, out, callback):
        _announce(work)
        with _shared(given, out, workers, flags) if ray is None else nullcontext():
            _do(work, ray)
            if tuned:
                # Every worker comes here once all runs that tune have ended, and reads the same choice from them.
                write_record(out / TUNING, read_tuning(study, out))
                work = replace(work, planned=planned_runs(study, out))
                _announce(work)
                _do(work, ray)
        record = read_study(out)
        if not is_helper():
            write_record(out / RESULTS, record)
    return record


def _announce(work: Work) -> None:
    """Tell what is planned, and what of it has ended: what is damaged is better known now than hours later."""
    planned, out = work.planned, work.out
    work.callback.on_plan(planned, {run.name: read_ended(run, out) for run in planned if run.has_ended(out)})


def _do(work: Work, ray: str | None) -> None:
    """Do the runs that are planned, until all are recorded."""
    if ray is not None:
        work_off_on_ray(work, ray)
    else:
        _work_off(work)


@contextmanager
def _begun(study: Study, data: "ImageData", out: Path, callback: StudyCallback) -> Iterator[None]:
    """Share the folder, with settings and data noted in it, with all that work on the study.

    Both go again where the study fails before its first run has begun, so that the folder is free for another attempt.
    """
    with folder_lock(out, share=True, patience=PATIENCE) as lock:
        # Another process may have taken the folder since.
        held, joined = claim_folder(study, out), lock.shared
        if joined:
            callback.on_note(f"other processes work on the study in {out}; this one shares its runs")
        elif is_former(out):
            convert_folder(out)
        if not held or read_config(out) != study:
            write_json(out / STUDY, study_settings(study))
        claim_data(data, out)
        lock.share()
        try:
            yield
        except BaseException:
            if (joined or not held) and not (out / RUNS).exists() and lock.take():
                for name in (DATA, STUDY):
                    (out / name).unlink(missing_ok=True)
            raise


@contextmanager
def _shared(study: Study, out: Path, workers: Workers, flags: Sequence[str]) -> Iterator[None]:
    """Share the runs with workers of this machine, which have these ``flags``; on cuda each takes the device of its
    local rank."""
    from resnetlab.train.distributed import take_device

    end_with_starter()
    if "LOCAL_RANK" in os.environ:
        take_device(study.recipe.training.device)
    # Which runs judge is known before the value of what is tuned is.
    lowest = {name: values[0] for name, values in study.tune.items()}
    judging = plan_runs(study, dict.fromkeys(product(*study.axes.values()), lowest))
    left = sum(not run.has_ended(out) for run in (*plan_tuning(study), *judging))
    count = min(count_workers(workers, study.recipe.training.device), left)
    words = shlex.split(study_command(study))[1:]
    words[words.index("STUDY")] = str(out)
    with local_workers([*words, *flags], max(0, count - 1)):
        yield


def _work_off(work: Work) -> None:
    """Do the runs that no other process does until all are recorded, those of others too."""
    planned, out, callback = work.planned, work.out, work.callback
    left = [(number, run) for number, run in enumerate(planned, start=1) if not run.has_ended(out)]
    told = set[str]()
    worked = monotonic()
    while left:
        others, holders = [], []
        for number, run in left:
            with ExitStack() as stack:
                try:
                    stack.enter_context(folder_lock(run.folder(out)))
                except BusyError as error:
                    others.append((number, run))
                    holders.append(f"{run.name} (process {error.holder})")
                    continue
                if run.has_ended(out):
                    callback.on_found(run, number, len(planned), read_ended(run, out))
                    continue
                inner = callback.on_run_start(run, number, len(planned))
                record = run_recipe(
                    run.recipe,
                    run.folder(out),
                    resume=True,
                    callback=inner,
                    stop=work.stop,
                    page=False,
                    alone=True,
                    data=work.data_of(run),
                )
                keep_of(record, run.recipe, run.folder(out), work.keep)
                callback.on_run_end(run, record)
                worked = monotonic()
        left = others
        if left:
            sleep(LOOK_EVERY)
        if left and monotonic() - worked > TELL_AFTER and not told.issuperset(holders):
            callback.on_note(f"waiting for runs that other processes do: {listed(holders)}")
            told.update(holders)


def check_runs(
    planned: Sequence[PlannedRun], out: Path, place: str | None = None, *, here: bool = True
) -> "dict[DataKey, ImageData]":
    """The data of the study in ``out``, when all that can be wrong with them, the device or a net is known to be right;
    the device only where runs are trained ``here``.

    A study that was begun finds them as its runs do (``train.folder.data_places``), or in ``place``. Raises what the
    first run, or one hours later, would raise.
    """
    from resnetlab.models.init import check_network
    from resnetlab.train.prepare import pick_device

    read: dict[DataKey, ImageData] = {}
    for run in planned:
        if run.seed != planned[0].seed:
            continue
        recipe = run.recipe
        if here:
            pick_device(recipe.training.device)
        key = data_key(recipe)
        if key not in read:
            if (out / DATA).is_file():
                # Of the data of an axis, the folder holds the sum of the first alone.
                where = place if recipe.data == planned[0].recipe.data else data_places(out, recipe.data)[0]
                read[key] = run_data(out, recipe, where)
            else:
                read[key] = recipe_data(recipe)
        check_network(fitted_config(recipe, read[key]))
    return read
