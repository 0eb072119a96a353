"""A run is a recipe in a folder: claimed, trained, and recorded.

A run folder holds ``recipe.yaml``, ``data.json`` (what the data were), ``classes.json``, ``metrics.jsonl``, ``last/``
and ``best/``; once the run has ended ``record.json``, ``examination.json``, ``report.html`` and a model card too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from resnetlab.core.environment import describe_environment
from resnetlab.core.errors import ConfigError, DataError, DivergedError
from resnetlab.core.files import atomic_write, folder_exists, folder_lock, read_json, require_vacant, write_json
from resnetlab.core.serialize import as_plain, read_record, write_record
from resnetlab.records.run import EpochRecord, Metrics, RunRecord
from resnetlab.train.recipe import (
    Recipe,
    differences,
    fitted_config,
    read_recipe,
    recipe_data,
    recipe_network,
    write_recipe,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from resnetlab.data.dataset import ImageData
    from resnetlab.train.callbacks import Callback
    from resnetlab.train.gradients import GradientTrace
    from resnetlab.train.signals import StopRequest

RECIPE, RECORD, DATA, CLASSES = "recipe.yaml", "record.json", "data.json", "classes.json"


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    callback: "Callback | None" = None,
    stop: "StopRequest | None" = None,
    on_progress: Callable[[int, int], None] | None = None,
    page: bool = True,
    alone: bool = False,
) -> RunRecord:
    """Train the recipe in the folder ``out`` and return its record.

    With ``resume`` a run that was interrupted goes on from its last checkpoint, bit for bit, and one that has ended
    gives its record again. A run that diverges has a record too, with ``status="diverged"``. Under torchrun every rank
    calls this, and the leading one writes. ``on_progress`` hears of the reading of data. ``page`` writes examination,
    page and model card too; a study has a page of its own. With ``alone`` a rank trains by itself.

    Raises ``ConfigError`` where ``out`` holds another run, or a run and ``resume`` is not set, ``StoppedError`` where
    ``stop`` asked for it.
    """
    from resnetlab.models.init import build
    from resnetlab.train.distributed import process_group, world
    from resnetlab.train.prepare import pick_device

    with nullcontext(world()) if alone else process_group(recipe.training.device) as here:
        if _has_ended(recipe, out, resume):
            return read_record(RunRecord, out / RECORD)
        # What can be wrong with settings, data or network is found before anything is written.
        data = recipe_data(recipe, on_progress)
        device = pick_device(recipe.training.device)
        build(fitted_config(recipe, data), seed=0, device="meta")
        with _claimed(recipe, data, out, resume, here.leads) as ended:
            if ended:
                return read_record(RunRecord, out / RECORD)
            record, net = _train(recipe, data, device, out, callback, stop)
            if here.leads:
                if page:
                    describe_run(record, net, data, recipe, out)
                # Last: a run without its record has not ended.
                write_record(out / RECORD, record)
    return record


def describe_run(record: RunRecord, net: "nn.Module", data: "ImageData", recipe: Recipe, out: Path) -> None:
    """Write what people read of a run that has ended: ``examination.json``, ``report.html`` and ``README.md``."""
    from resnetlab.core.config import command_of
    from resnetlab.data.loader import Loader
    from resnetlab.records.run import EXAMINATION
    from resnetlab.report.model_card import CARD, run_card
    from resnetlab.report.run.page import write_run_report
    from resnetlab.train.evaluate import examine
    from resnetlab.train.prepare import autocast

    examination = None
    if record.final:
        device = next(net.parameters()).device
        loader = Loader(data.reported.to(device), data.normalisation, recipe.training.batch_size)
        with autocast(recipe.training.precision, device):
            examination = examine(net, loader, data.classes, lambda which: next(data.reported.batches([which])))
        write_record(out / EXAMINATION, examination)
    command = command_of("train", "RUN", record.recipe, as_plain(Recipe()))
    atomic_write(out / CARD, run_card(record, examination, command))
    write_run_report(record, examination, command, out)


def _has_ended(recipe: Recipe, out: Path, resume: bool) -> bool:
    """Whether the folder holds this very run with its record; asked by the leading rank for all."""
    from resnetlab.train.distributed import share_bytes, world

    ended = world().leads and claim_folder(recipe, out, resume=resume) and (out / RECORD).is_file()
    return share_bytes(b"yes" if ended else b"no") == b"yes"


@contextmanager
def _claimed(recipe: Recipe, data: "ImageData", out: Path, resume: bool, leads: bool) -> Iterator[bool]:
    """Hold the folder, with recipe and data noted in it; True where another process has done this run meanwhile."""
    from resnetlab.train.distributed import share_bytes

    if not leads:
        yield share_bytes(None) == b"yes"
        return
    with folder_lock(out):
        ended = claim_folder(recipe, out, resume=resume) and (out / RECORD).is_file()
        if not ended:
            write_recipe(out / RECIPE, recipe)
            claim_data(data, out)
            write_json(out / CLASSES, list(data.classes))
        share_bytes(b"yes" if ended else b"no")
        yield ended


def _train(
    recipe: Recipe,
    data: "ImageData",
    device: "torch.device",
    out: Path,
    callback: "Callback | None",
    stop: "StopRequest | None",
) -> "tuple[RunRecord, nn.Module]":
    """The run itself: network, training with its gradients measured; its record and the trained network."""
    import torch

    from resnetlab.models.summary import summarise
    from resnetlab.train.callbacks import NoCallback
    from resnetlab.train.distributed import world
    from resnetlab.train.gradients import GradientTrace

    started = perf_counter()
    callback = callback or NoCallback()
    net = _network(recipe, data, device, callback)
    trace = GradientTrace(net, first_batch(recipe, data, device), recipe.seed)
    history, fault = _fit(net, recipe, data, out, callback, stop, trace)
    end = trace.measure(net)
    summary = summarise(fitted_config(recipe, data))
    record = RunRecord(
        model=recipe.model,
        recipe=as_plain(recipe),
        parameters=summary.parameters,
        multiply_adds=summary.multiply_adds,
        status="finished" if fault is None else "diverged",
        message=fault or "",
        history=history,
        gradients_start=trace.start,
        gradients_end=end,
        # A run that diverged went back to its last checkpoint, so its end is none of the trace.
        gradient_trace=trace.moments(end if fault is None else None),
        data=data.fingerprint,
        environment=describe_environment(str(device), torch.get_num_threads()) | {"ranks": world().size},
        seconds=perf_counter() - started,
    )
    return record, net


def _network(recipe: Recipe, data: "ImageData", device: "torch.device", callback: "Callback") -> "nn.Module":
    """The network that the run begins with; ``callback`` hears what there is to say of it, the data and the batch."""
    from resnetlab.models.resnet import ResNetConfig, image_notes
    from resnetlab.train.prepare import batch_note, save_memory

    config = fitted_config(recipe, data)
    net, notes = recipe_network(recipe, data, str(device))
    notes += [*data.notes, *batch_note(recipe.training)]
    for note in notes + (image_notes(config) if isinstance(config, ResNetConfig) else []):
        callback.on_note(note)
    save_memory(net, recipe.training)
    return net


def _fit(
    net: "nn.Module",
    recipe: Recipe,
    data: "ImageData",
    out: Path,
    callback: "Callback",
    stop: "StopRequest | None",
    trace: "GradientTrace",
) -> tuple[list[EpochRecord], str | None]:
    """Train ``net`` in place; the epochs that are kept, and of a run that diverged where it did."""
    from resnetlab.train.checkpoint import read_checkpoint
    from resnetlab.train.checkpoint_manager import LAST
    from resnetlab.train.loop import fit

    seed, between = recipe.seed, trace.between
    try:
        return fit(net, data, recipe.training, seed=seed, out=out, callback=callback, stop=stop, trace=between), None
    except DivergedError as error:
        return read_checkpoint(out / LAST).history if folder_exists(out / LAST) else [], str(error)


def first_batch(recipe: Recipe, data: "ImageData", device: "torch.device") -> "tuple[Tensor, Tensor]":
    """The batch of the run's first step, whole, however many ranks and micro-batches share it."""
    from dataclasses import replace

    from resnetlab.train.prepare import make_loader

    whole = replace(recipe.training, accumulate=1)
    return next(make_loader(data, whole, device, recipe.seed, alone=True).shuffled(recipe.seed, epoch=1))


def restored_network(folder: Path, which: Literal["last", "best"] = "last") -> "tuple[nn.Module, ImageData, Recipe]":
    """A run's trained network, its data and its recipe.

    Raises ``CheckpointError`` where the checkpoint is missing or damaged, ``DataError`` where the recipe is missing or
    the data have changed.
    """
    from resnetlab.models.init import build
    from resnetlab.train.checkpoint import read_checkpoint
    from resnetlab.train.prepare import pick_device
    from resnetlab.train.state import restore_model

    recipe = read_recipe(folder / RECIPE)
    data = recipe_data(recipe)
    check_data(data, folder)
    net = build(fitted_config(recipe, data), seed=recipe.seed, device=str(pick_device(recipe.training.device)))
    checkpoint = read_checkpoint(folder / which)
    restore_model(net, checkpoint.model, checkpoint)
    return net, data, recipe


def evaluate_run(folder: Path, which: Literal["last", "best"] = "last") -> Metrics:
    """Loss and error on the test split of a run's checkpoint, counted afresh. Raises as ``restored_network`` does."""
    return measure_test(*restored_network(folder, which))


def measure_test(net: "nn.Module", data: "ImageData", recipe: Recipe) -> Metrics:
    """Loss and error of ``net`` on the test split of ``data``, in batches and precision of the recipe."""
    from resnetlab.train.evaluate import evaluate_batches
    from resnetlab.train.prepare import make_loaders, pick_device, place

    _, test = make_loaders(data, recipe.training, pick_device(recipe.training.device))
    place(net, test)
    return evaluate_batches(net, test, recipe.training.precision)


def claim_folder(recipe: Recipe, out: Path, *, resume: bool) -> bool:
    """Whether ``out`` already holds this run; if not, it is vacant.

    Raises ``ConfigError`` where it holds anything else, or this run and ``resume`` is not set.
    """
    if not require_vacant(out, "run", RECIPE):
        return False
    if not resume:
        raise ConfigError(
            f"{out} already holds a run; use --resume auto (resume=True) to go on with it, or choose another"
        )
    changed = differences(as_plain(read_recipe(out / RECIPE)), as_plain(recipe))
    if changed:
        raise ConfigError(
            f"{out} holds a run with other settings: {', '.join(changed)}; give the same settings or another folder"
        )
    return True


def claim_data(data: "ImageData", folder: Path) -> None:
    """Note in ``folder`` what the data are, or check that they are what was noted when the folder was begun."""
    if (folder / DATA).is_file():
        check_data(data, folder)
    else:
        write_json(folder / DATA, data.fingerprint)


def check_data(data: "ImageData", folder: Path) -> None:
    """Raise ``DataError`` unless the data are, to the bit, those that ``folder`` was begun with."""
    noted = read_json(folder / DATA)
    if not isinstance(noted, dict) or noted.get("sha256") != data.fingerprint["sha256"]:
        raise DataError(
            f"{data.source} has changed since {folder} was begun: its SHA-256 is another; "
            "put the data back, or choose another folder"
        )
