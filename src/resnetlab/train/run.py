"""A run: a recipe in a folder, trained and recorded.

A run folder holds ``recipe.yaml``, ``data.json`` (what the data were) and ``classes.json``, with their sums in
``run.json``; ``metrics.jsonl``, ``last/`` and ``best/``; once the run has ended ``record.json``, ``examination.json``,
``report.html`` and a model card too. It belongs to the run from the first step on: a start that fails leaves nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from resnetlab.core.errors import DivergedError, StorageError, first_line
from resnetlab.core.files import atomic_write, folder_exists
from resnetlab.core.serialize import as_plain, from_plain, read_record, write_record
from resnetlab.records.run import EpochRecord, Metrics, RunRecord
from resnetlab.train.folder import (
    DATA,
    RECIPE,
    RECORD,
    Claim,
    begun_settings,
    begun_weights,
    check_data,
    claimed,
    edited_files,
    has_ended,
    is_begun,
    moved_data,
    refusal,
    run_data,
)
from resnetlab.train.recipe import (
    Recipe,
    fitted_config,
    load_recipe,
    read_recipe,
    recipe_command,
    recipe_data,
    recipe_network,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from resnetlab.data.dataset import ImageData
    from resnetlab.models.config import NetConfig
    from resnetlab.records.run import ClassificationReport
    from resnetlab.train.callbacks import Callback
    from resnetlab.train.checkpoint import Checkpoint, RunSettings
    from resnetlab.train.gradients import GradientTrace
    from resnetlab.train.signals import StopRequest


def run_recipe(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    callback: "Callback | None" = None,
    stop: "StopRequest | None" = None,
    on_progress: Callable[[int, int], None] | None = None,
    page: bool = True,
    alone: bool = False,
    accept_changes: bool = False,
    data: "ImageData | None" = None,
    chosen: Sequence[str] = (),
) -> RunRecord:
    """Train the recipe, or that of a file, in the folder ``out`` and return its record.

    With ``resume`` a run that was interrupted resumes from its last checkpoint, bit for bit, and one that has ended
    gives its record again. A run that diverges has a record too, with ``status="diverged"``. Under torchrun every rank
    calls this, and the leading one writes. ``on_progress`` is called with (done, total) while data are read. ``page``
    writes report, page and model card too; a study has a page of its own. With ``alone`` a rank trains by itself,
    in a folder whose lock its caller holds.
    ``chosen`` are lines that the run says and its record keeps, on what a command left open and how it was chosen.
    ``accept_changes`` resumes with another recipe, data or classes than the run began with, and the record says so.
    ``data`` are the recipe's, where a study has found and read them.

    Raises ``ConfigError`` if ``out`` holds another run, or this one without ``resume``, or with other settings than it
    began with; ``StoppedError`` if ``stop`` asked for it.
    """
    from resnetlab.train.callbacks import NoCallback
    from resnetlab.train.distributed import process_group, world

    out, callback = Path(out), callback or NoCallback()
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(Path(recipe))
    with nullcontext(world()) if alone else process_group(recipe.training.device) as here:
        resumes = resume and not accept_changes and is_begun(out) and (out / DATA).is_file()
        recipe, place = moved_data(recipe, out) if resumes else (recipe, None)
        claim = Claim(recipe, out, resume=resume, accept_changes=accept_changes)
        if has_ended(claim):
            return read_record(RunRecord, out / RECORD)
        begun = resumes or data is not None
        if data is None:
            data = run_data(out, recipe, place, on_progress) if resumes else recipe_data(recipe, on_progress)
        config = check_recipe(recipe, data)
        with claimed(claim, data, here.leads, locked=alone) as ended:
            if ended:
                return read_record(RunRecord, out / RECORD)
            started = perf_counter()
            weights = begun_weights(out, recipe) if begun else recipe
            run, notes = prepare_run(recipe, weights, data, chosen or begun_settings(out).get("chosen", []))
            for note in [*(f"chosen: {line}" for line in chosen), *notes]:
                callback.on_note(note)
            if here.leads:
                claim.begin(data)
            history, fault = _fit(run, out, callback, stop)
            record = _record(run, config, history, fault, started)
            if here.leads:
                _finish(run, record, out, callback, page)
    return record


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run before its first step: what it trains, on what, and what is measured of it on the way."""

    recipe: Recipe
    data: "ImageData"
    device: "torch.device"
    net: "nn.Module"
    trace: "GradientTrace"
    settings: "RunSettings"


def prepare_run(
    recipe: Recipe, weights: Recipe, data: "ImageData", chosen: Sequence[str]
) -> tuple[PreparedRun, list[str]]:
    """The run, and what a user should know of it before it begins; ``weights`` is the recipe with its weights where
    they are now."""
    from resnetlab.train.gradients import GradientTrace
    from resnetlab.train.heap import keep_freed_memory
    from resnetlab.train.prepare import pick_device

    device = pick_device(recipe.training.device)
    if device.type == "cpu" and recipe.training.checkpoint_blocks is None:
        keep_freed_memory()
    net, notes = make_network(weights, data, device)
    images = traced_images(recipe, data, device)
    trace = GradientTrace(net, images, recipe.seed, everything=recipe.trace == "all")
    settings = run_settings(recipe, data, chosen)
    return PreparedRun(recipe=recipe, data=data, device=device, net=net, trace=trace, settings=settings), notes


@contextmanager
def _noted(what: str, out: Path, callback: "Callback") -> Iterator[None]:
    """Make a note of a fault in what is only looked at; but a disk that refuses is told as such."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        callback.on_note(
            f"the run was trained and is recorded, but could not be {what} ({type(error).__name__}: "
            f"{first_line(error)}); resnetlab report {out} draws its page"
        )


def run_settings(recipe: Recipe, data: "ImageData", chosen: Sequence[str]) -> "RunSettings":
    """What decides the run, as its checkpoints hold it, and what was chosen of it."""
    from resnetlab.train.checkpoint import RunSettings

    return RunSettings(values={"recipe": as_plain(recipe), "data": data.fingerprint["sha256"], "chosen": list(chosen)})


def compiled(settings: "RunSettings") -> dict[str, bool]:
    """Whether the run was compiled, where its trial has decided that."""
    from resnetlab.train.compile import COMPILED

    return {COMPILED: settings.values[COMPILED]} if COMPILED in settings.values else {}


def chooses(recipe: Recipe, data: "ImageData") -> bool:
    """Whether validation images choose the best epoch of the run."""
    return recipe.validation and data.validation is not None


def check_recipe(recipe: Recipe, data: "ImageData") -> "NetConfig":
    """The configuration of the network. Raises ``ConfigError`` for settings that cannot be trained with the data.

    Called before anything is written.
    """
    from resnetlab.models.init import check_network
    from resnetlab.train.loop import check_early_stop

    check_early_stop(recipe.training, chooses(recipe, data))
    config = fitted_config(recipe, data)
    check_network(config)
    return config


def make_network(recipe: Recipe, data: "ImageData", device: "torch.device") -> "tuple[nn.Module, list[str]]":
    """The network before its first step, and what a user should know of it, of the data and of the batch."""
    from resnetlab.models.resnet import ResNetConfig, image_notes
    from resnetlab.train.prepare import balance_note, batch_note, save_memory

    net, notes = recipe_network(recipe, data, str(device))
    save_memory(net, recipe.training)
    config = fitted_config(recipe, data)
    images = image_notes(config) if isinstance(config, ResNetConfig) else []
    return net, [*notes, *data.notes, *balance_note(data, recipe.training), *batch_note(recipe.training), *images]


def traced_images(recipe: Recipe, data: "ImageData", device: "torch.device") -> "tuple[Tensor, Tensor]":
    """The first images of the run's first step, the same on every rank: of the leading rank's first micro-batch as many
    as ``traced_of`` says, so that the trace takes no more memory than a step does."""
    from dataclasses import replace

    from resnetlab.train.distributed import world
    from resnetlab.train.gradients import traced_of
    from resnetlab.train.prepare import make_loader

    config = recipe.training
    loader = make_loader(data, replace(config, accumulate=1), device, recipe.seed, alone=True)
    shares = world().size * (config.accumulate if loader.batch_size == config.batch_size else 1)
    # Shares that do not come out even are refused when training begins.
    loader.micro_batches = shares if loader.batch_size % shares == 0 and loader.batch_size // shares > 1 else 1
    images, labels = next(loader.shuffled(recipe.seed, epoch=1))
    count = traced_of(len(images), config.precision)
    return images[:count].clone(), labels[:count].clone()


def _fit(
    run: PreparedRun, out: Path, callback: "Callback", stop: "StopRequest | None"
) -> tuple[list[EpochRecord], str | None]:
    """Train the network in place; the epochs of the run, and the message of one that diverged."""
    from resnetlab.train.checkpoint import read_checkpoint
    from resnetlab.train.checkpoint_manager import LAST
    from resnetlab.train.loop import fit

    try:
        history = fit(
            run.net,
            run.data,
            run.recipe.training,
            seed=run.recipe.seed,
            out=out,
            callback=callback,
            stop=stop,
            trace=run.trace.between,
            choose=run.recipe.validation,
            settings=run.settings,
        )
        return history, None
    except DivergedError as error:
        return read_checkpoint(out / LAST).history if folder_exists(out / LAST) else [], str(error)


def _record(
    run: PreparedRun, config: "NetConfig", history: list[EpochRecord], fault: str | None, started: float
) -> RunRecord:
    """The record of a run that has ended; ``started`` is the ``perf_counter`` of its start."""
    from resnetlab.models.summary import network_cost
    from resnetlab.train.prepare import environment_of

    end, last = run.trace.measure(run.net, run.trace.between.steps)
    parameters, multiply_adds = network_cost(config)
    return RunRecord(
        model=run.recipe.model,
        recipe=as_plain(run.recipe),
        status="diverged" if fault else "finished",
        message=fault or "",
        history=history,
        chosen_by="validation" if chooses(run.recipe, run.data) else None,
        parameters=parameters,
        multiply_adds=multiply_adds,
        gradients_start=run.trace.start,
        gradients_end=end,
        # A run that diverged went back to its last checkpoint: its end is no part of the trace.
        gradient_trace=run.trace.moments(None if fault else last),
        data=run.data.fingerprint,
        environment=environment_of(run.device) | compiled(run.settings),
        seconds=perf_counter() - started,
        changes=run.settings.changes,
        chosen=list(run.settings.values["chosen"]),
    )


def _finish(run: PreparedRun, record: RunRecord, out: Path, callback: "Callback", page: bool) -> None:
    """Write the record, and with ``page`` what people look at."""
    report = None
    with _noted("examined", out, callback):
        report = _examine(run, record, out) if page else None
    # A run with its record has ended, whatever becomes of the pages that are drawn from it.
    write_record(out / RECORD, record)
    with _noted("drawn", out, callback):
        if page:
            write_pages(record, report, out)


def _examine(run: PreparedRun, record: RunRecord, out: Path) -> "ClassificationReport | None":
    """Write ``examination.json``, every answer of the trained network; None for a run that diverged."""
    from resnetlab.data.loader import Loader
    from resnetlab.records.run import REPORT
    from resnetlab.train.evaluate import classification_report
    from resnetlab.train.prepare import autocast

    if not record.final:
        return None
    device = next(run.net.parameters()).device
    loader = Loader(run.data.reported.to(device), run.data.normalisation, run.recipe.training.batch_size)
    with autocast(run.recipe.training.precision, device):
        report = classification_report(run.net, run.data, loader)
    write_record(out / REPORT, report)
    return report


def write_pages(record: RunRecord, report: "ClassificationReport | None", out: Path) -> None:
    """Write what people read of a run that has ended: ``report.html`` and ``README.md``."""
    from resnetlab.report.model_card import CARD, run_card
    from resnetlab.report.run.page import write_run_report

    command = recipe_command(record.recipe)
    atomic_write(out / CARD, run_card(record, report, command))
    write_run_report(record, report, command, out)


def restored_network(
    folder: str | Path, which: Literal["last", "best"] = "last", place: str | None = None
) -> "tuple[nn.Module, ImageData, Recipe]":
    """A run's trained network, its data and its recipe; ``place`` is where the data are now, if they have moved.

    Raises ``CheckpointError`` where the checkpoint is missing or damaged, ``DataError`` where the recipe is missing or
    the data, data.json or classes.json have changed, ``ConfigError`` where the recipe was edited.
    """
    from resnetlab.models.init import build
    from resnetlab.train.prepare import pick_device
    from resnetlab.train.state import restore_model

    folder = Path(folder)
    recipe, checkpoint = read_trained(folder, which)
    data = run_data(folder, recipe, place)
    check_data(data, folder)
    net = build(fitted_config(recipe, data), seed=recipe.seed, device=str(pick_device(recipe.training.device)))
    restore_model(net, checkpoint.model, checkpoint)
    return net, data, recipe


def read_trained(folder: Path, which: Literal["last", "best"] = "last") -> "tuple[Recipe, Checkpoint]":
    """The recipe and the checkpoint of a run, without its data. Raises as ``restored_network`` does."""
    from resnetlab.train.checkpoint import read_checkpoint

    recipe = read_recipe(folder / RECIPE)
    checkpoint = read_checkpoint(folder / which)
    # The checkpoint's own: that of an epoch before a change that was accepted is another one.
    if "recipe" in checkpoint.settings.values:
        recipe = from_plain(Recipe, checkpoint.settings.values["recipe"], str(checkpoint.origin))
    edited = edited_files(folder, begun_settings(folder))
    if edited:
        raise refusal(
            edited,
            f"{folder} is not as the run left it: {', '.join(edited)}; put it back as it was, or resume an unfinished "
            "run with --accept-changes",
        )
    return recipe, checkpoint


def evaluate_run(folder: str | Path, which: Literal["last", "best"] = "last", place: str | None = None) -> Metrics:
    """Evaluate a run's checkpoint on the split to report: loss and error. Arguments and errors as of
    ``restored_network``."""
    return evaluate_restored(*restored_network(Path(folder), which, place))


def evaluate_restored(net: "nn.Module", data: "ImageData", recipe: Recipe) -> Metrics:
    """Loss and error of ``net`` on the split to report of ``data``, in batches and precision of the recipe."""
    from resnetlab.train.evaluate import evaluate_batches
    from resnetlab.train.prepare import evaluation_loaders, move_to, pick_device

    loader = evaluation_loaders(data, recipe.training, pick_device(recipe.training.device))[data.reported_split]
    move_to(net, loader)
    return evaluate_batches(net, loader, recipe.training.precision)
