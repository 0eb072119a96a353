"""A run: a recipe in a folder, trained and recorded.

A run folder holds ``recipe.yaml``, ``data.json`` (what the data were), ``classes.json``, ``metrics.jsonl``, ``last/``
and ``best/``; once the run has ended ``record.json``, ``examination.json``, ``report.html`` and a model card too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

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
    from resnetlab.models.config import NetConfig
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

    With ``resume`` a run that was interrupted resumes from its last checkpoint, bit for bit, and one that has ended
    gives its record again. A run that diverges has a record too, with ``status="diverged"``. Under torchrun every rank
    calls this, and the leading one writes. ``on_progress`` is called with (done, total) while data are read. ``page``
    writes report, page and model card too; a study has a page of its own. With ``alone`` a rank trains by itself.

    Raises ``ConfigError`` if ``out`` holds another run, or this one without ``resume``; ``StoppedError`` if ``stop``
    asked for it.
    """
    from resnetlab.models.summary import summarise
    from resnetlab.train.callbacks import NoCallback
    from resnetlab.train.distributed import process_group, world
    from resnetlab.train.gradients import GradientTrace
    from resnetlab.train.prepare import environment_of, pick_device

    callback = callback or NoCallback()
    with nullcontext(world()) if alone else process_group(recipe.training.device) as here:
        if _has_ended(recipe, out, resume):
            return read_record(RunRecord, out / RECORD)
        data = recipe_data(recipe, on_progress)
        device = pick_device(recipe.training.device)
        config = check_recipe(recipe, data)
        with _claimed(recipe, data, out, resume, here.leads) as ended:
            if ended:
                return read_record(RunRecord, out / RECORD)
            started = perf_counter()
            net, notes = make_network(recipe, data, device)
            for note in notes:
                callback.on_note(note)
            trace = GradientTrace(net, first_batch(recipe, data, device), recipe.seed)
            history, fault = _fit(net, recipe, data, out, callback, stop, trace)
            end, cost = trace.measure(net), summarise(config)
            record = RunRecord(
                model=recipe.model,
                recipe=as_plain(recipe),
                status="diverged" if fault else "finished",
                message=fault or "",
                history=history,
                chosen_by="validation" if chooses(recipe, data) else None,
                parameters=cost.parameters,
                multiply_adds=cost.multiply_adds,
                gradients_start=trace.start,
                gradients_end=end,
                # A run that diverged went back to its last checkpoint: its end is no part of the trace.
                gradient_trace=trace.moments(None if fault else end),
                data=data.fingerprint,
                environment=environment_of(device),
                seconds=perf_counter() - started,
            )
            if here.leads:
                if page:
                    write_pages(record, net, data, recipe, out)
                # Last: a run without its record has not ended.
                write_record(out / RECORD, record)
    return record


def chooses(recipe: Recipe, data: "ImageData") -> bool:
    """Whether validation images choose the best epoch of the run."""
    return recipe.validation and data.validation is not None


def check_recipe(recipe: Recipe, data: "ImageData") -> "NetConfig":
    """The configuration of the network. Raises ``ConfigError`` for settings that cannot be trained with the data.

    Called before anything is written.
    """
    from resnetlab.models.init import build
    from resnetlab.train.loop import check_early_stop

    check_early_stop(recipe.training, chooses(recipe, data))
    config = fitted_config(recipe, data)
    build(config, seed=0, device="meta")
    return config


def make_network(recipe: Recipe, data: "ImageData", device: "torch.device") -> "tuple[nn.Module, list[str]]":
    """The network before its first step, and what a user should know of it, of the data and of the batch."""
    from resnetlab.models.resnet import ResNetConfig, image_notes
    from resnetlab.train.prepare import batch_note, save_memory

    net, notes = recipe_network(recipe, data, str(device))
    save_memory(net, recipe.training)
    config = fitted_config(recipe, data)
    images = image_notes(config) if isinstance(config, ResNetConfig) else []
    return net, [*notes, *data.notes, *batch_note(recipe.training), *images]


def first_batch(recipe: Recipe, data: "ImageData", device: "torch.device") -> "tuple[Tensor, Tensor]":
    """The batch of the run's first step, whole, however many ranks and micro-batches share it."""
    from dataclasses import replace

    from resnetlab.train.prepare import make_loader

    whole = replace(recipe.training, accumulate=1)
    return next(make_loader(data, whole, device, recipe.seed, alone=True).shuffled(recipe.seed, epoch=1))


def _fit(
    net: "nn.Module",
    recipe: Recipe,
    data: "ImageData",
    out: Path,
    callback: "Callback",
    stop: "StopRequest | None",
    trace: "GradientTrace",
) -> tuple[list[EpochRecord], str | None]:
    """Train ``net`` in place; the epochs of the run, and the message of one that diverged."""
    from resnetlab.train.checkpoint import read_checkpoint
    from resnetlab.train.checkpoint_manager import LAST
    from resnetlab.train.loop import fit

    try:
        history = fit(
            net,
            data,
            recipe.training,
            seed=recipe.seed,
            out=out,
            callback=callback,
            stop=stop,
            trace=trace.between,
            choose=recipe.validation,
        )
        return history, None
    except DivergedError as error:
        return read_checkpoint(out / LAST).history if folder_exists(out / LAST) else [], str(error)


def write_pages(record: RunRecord, net: "nn.Module", data: "ImageData", recipe: Recipe, out: Path) -> None:
    """Write what people read of a run that has ended: ``examination.json``, ``report.html`` and ``README.md``."""
    from resnetlab.core.config import command_of
    from resnetlab.data.loader import Loader
    from resnetlab.records.run import REPORT
    from resnetlab.report.model_card import CARD, run_card
    from resnetlab.report.run.page import write_run_report
    from resnetlab.train.evaluate import classification_report
    from resnetlab.train.prepare import autocast

    report = None
    if record.final:
        device = next(net.parameters()).device
        loader = Loader(data.reported.to(device), data.normalisation, recipe.training.batch_size)
        with autocast(recipe.training.precision, device):
            report = classification_report(net, data, loader)
        write_record(out / REPORT, report)
    command = command_of("train", "RUN", record.recipe, as_plain(Recipe()))
    atomic_write(out / CARD, run_card(record, report, command))
    write_run_report(record, report, command, out)


def _has_ended(recipe: Recipe, out: Path, resume: bool) -> bool:
    """Whether the folder holds this very run with its record; the leading rank looks for all."""
    from resnetlab.train.distributed import share_bytes, world

    ended = world().leads and claim_folder(recipe, out, resume=resume) and (out / RECORD).is_file()
    return share_bytes(b"yes" if ended else b"no") == b"yes"


@contextmanager
def _claimed(recipe: Recipe, data: "ImageData", out: Path, resume: bool, leads: bool) -> Iterator[bool]:
    """Lock the folder and write recipe and data into it; True where another process has done this run meanwhile."""
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
    """Evaluate a run's checkpoint on the split to report: loss and error. Raises as ``restored_network`` does."""
    return evaluate_restored(*restored_network(folder, which))


def evaluate_restored(net: "nn.Module", data: "ImageData", recipe: Recipe) -> Metrics:
    """Loss and error of ``net`` on the split to report of ``data``, in batches and precision of the recipe."""
    from resnetlab.train.evaluate import evaluate_batches
    from resnetlab.train.prepare import evaluation_loaders, move_to, pick_device

    loader = evaluation_loaders(data, recipe.training, pick_device(recipe.training.device))[data.reported_split]
    move_to(net, loader)
    return evaluate_batches(net, loader, recipe.training.precision)


def claim_folder(recipe: Recipe, out: Path, *, resume: bool) -> bool:
    """Whether ``out`` already holds this run; if not, it is vacant.

    Raises ``ConfigError`` if ``out`` holds anything else, or this run without ``resume``.
    """
    if not require_vacant(out, "run", RECIPE):
        return False
    if not resume:
        raise ConfigError(
            f"{out} already holds a run; resume it with --resume auto (resume=True), or choose another folder"
        )
    changed = differences(as_plain(read_recipe(out / RECIPE)), as_plain(recipe))
    if changed:
        raise ConfigError(
            f"{out} holds a run with other settings: {', '.join(changed)}; give the same settings or another folder"
        )
    return True


def claim_data(data: "ImageData", folder: Path) -> None:
    """Write into ``folder`` what the data are, or check that they are what was written when the run began."""
    if (folder / DATA).is_file():
        check_data(data, folder)
    else:
        write_json(folder / DATA, data.fingerprint)


def check_data(data: "ImageData", folder: Path) -> None:
    """Raise ``DataError`` unless the data are, to the bit, those that the run in ``folder`` began with."""
    noted = read_json(folder / DATA)
    if not isinstance(noted, dict) or noted.get("sha256") != data.fingerprint["sha256"]:
        raise DataError(
            f"{data.source} has changed since {folder} was begun: its SHA-256 is another; "
            "put the data back, or choose another folder"
        )
