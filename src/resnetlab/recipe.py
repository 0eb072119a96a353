"""A recipe is model + data + training + seed; a run is a recipe in a folder, and a record is what came of it.

A run folder holds ``recipe.yaml``, ``data.json`` (what the data were), ``metrics.jsonl``, ``last/``, ``best/`` and,
once the run has ended, ``record.json``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from resnetlab.errors import ConfigError, DataError, DivergedError, require, require_choice
from resnetlab.files import atomic_write, folder_exists, folder_lock, is_vacant, read_json, write_json
from resnetlab.records import Metrics, RunRecord, as_plain, describe_environment, from_plain, read_record, write_record
from resnetlab.train.config import TrainConfig

if TYPE_CHECKING:
    import torch

    from resnetlab.data.arrays import ImageData
    from resnetlab.models.config import NetConfig
    from resnetlab.train.logs import Watcher

RECIPE, RECORD, DATA = "recipe.yaml", "record.json", "data.json"

ShortcutChoice = Literal["default", "A", "B", "C", "none"]
SHORTCUT_CHOICES = ("default", "A", "B", "C", "none")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run.

    Raises ``ConfigError`` for values that make no run.
    """

    model: str = "cifar_resnet20"
    """Name of the network; resnetlab list shows them."""
    shortcut: ShortcutChoice = "default"
    """Shortcut option of the paper; none is the plain twin, default is what the name stands for."""
    options: dict[str, str] = field(default_factory=dict)
    """Further settings of the network, such as norm layer, or zero_init_residual true."""
    data: str = "digits"
    """digits, or idx:FOLDER for MNIST and Fashion-MNIST files."""
    split_seed: int = 0
    """Decides the split of data that comes without one (digits)."""
    seed: int = 0
    """Decides initial weights, order of the pictures and all else that is random."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """How it is trained."""

    def __post_init__(self) -> None:
        require_choice("shortcut", self.shortcut, SHORTCUT_CHOICES)
        for key, value in self.options.items():
            require(isinstance(value, str), f"option {key}", value, "written as text, such as 'true' or '[16, 32]'")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(0 <= self.split_seed < 2**32, "split_seed", self.split_seed, "from 0 to 2^32 - 1")


def run_recipe(recipe: Recipe, out: Path, *, resume: bool = False, watcher: "Watcher | None" = None) -> RunRecord:
    """Train the recipe in the folder ``out`` and return its record.

    With ``resume`` a run that was interrupted goes on from its last checkpoint, bit for bit, and one that has ended
    gives its record again. A run that diverges has a record too, with ``status="diverged"``.

    Raises ``ConfigError`` where ``out`` holds another run, or a run and ``resume`` is not set.
    """
    from resnetlab.data.sources import load_data
    from resnetlab.models.init import build
    from resnetlab.train.loop import pick_device

    if claim_folder(recipe, out, resume=resume) and (out / RECORD).is_file():
        return read_record(RunRecord, out / RECORD)
    # What can be wrong with settings, data or network is found before anything is written.
    data = load_data(recipe.data, recipe.split_seed)
    device = pick_device(recipe.training.device)
    config = fitted_config(recipe, data)
    build(config, seed=0, device="meta")
    with folder_lock(out):
        # Another process may have taken the folder since, and even have done this very run.
        if claim_folder(recipe, out, resume=resume) and (out / RECORD).is_file():
            return read_record(RunRecord, out / RECORD)
        write_recipe(out / RECIPE, recipe)
        claim_data(data, out)
        record = _train(recipe, data, config, device, out, watcher)
        write_record(out / RECORD, record)
    return record


def _train(
    recipe: Recipe,
    data: "ImageData",
    config: "NetConfig",
    device: "torch.device",
    out: Path,
    watcher: "Watcher | None",
) -> RunRecord:
    """The run itself: network, gradients before, training, gradients after."""
    import torch

    from resnetlab.diagnostics.gradients import block_gradients
    from resnetlab.models.init import build
    from resnetlab.models.resnet import ResNetConfig, picture_notes
    from resnetlab.models.summary import summarise
    from resnetlab.train.checkpoint import read_checkpoint
    from resnetlab.train.loop import LAST, fit, make_loaders

    started = perf_counter()
    if watcher and isinstance(config, ResNetConfig):
        for note in picture_notes(config):
            watcher.on_note(note)
    net = build(config, seed=recipe.seed, device=str(device))
    loader, _ = make_loaders(data, recipe.training, device)
    images, labels = next(loader.shuffled(recipe.seed, epoch=1))
    before = block_gradients(net, images, labels)
    status: Literal["finished", "diverged"] = "finished"
    message = ""
    try:
        history = fit(net, data, recipe.training, seed=recipe.seed, out=out, watcher=watcher)
    except DivergedError as error:
        history = read_checkpoint(out / LAST).history if folder_exists(out / LAST) else []
        status, message = "diverged", str(error)
    summary = summarise(config)
    return RunRecord(
        model=recipe.model,
        recipe=as_plain(recipe),
        parameters=summary.parameters,
        multiply_adds=summary.multiply_adds,
        status=status,
        message=message,
        history=history,
        gradients_start=before,
        gradients_end=block_gradients(net, images, labels),
        data=data.fingerprint,
        environment=describe_environment(str(device), torch.get_num_threads()),
        seconds=perf_counter() - started,
    )


def evaluate_run(folder: Path, which: Literal["last", "best"] = "last") -> Metrics:
    """Loss and error on the test split of a run's checkpoint, counted afresh.

    Raises ``CheckpointError`` where the checkpoint is missing or damaged, ``DataError`` where the recipe is missing or
    the data have changed.
    """
    recipe = read_recipe(folder / RECIPE)

    from resnetlab.data.sources import load_data
    from resnetlab.models.init import build
    from resnetlab.train.checkpoint import read_checkpoint, restore_model
    from resnetlab.train.evaluate import evaluate_batches
    from resnetlab.train.loop import make_loaders, pick_device, place

    data = load_data(recipe.data, recipe.split_seed)
    check_data(data, folder)
    device = pick_device(recipe.training.device)
    net = build(fitted_config(recipe, data), seed=recipe.seed, device=str(device))
    restore_model(net, read_checkpoint(folder / which))
    _, test = make_loaders(data, recipe.training, device)
    place(net, test)
    return evaluate_batches(net, test)


def fitted_config(recipe: Recipe, data: "ImageData") -> "NetConfig":
    """The configuration of the recipe's network, fitted to the data's channels, size and classes."""
    return replace(
        recipe_config(recipe), num_classes=len(data.classes), in_chans=data.in_chans, image_size=data.image_size
    )


def recipe_config(recipe: Recipe) -> "NetConfig":
    """The configuration of the recipe's network: the named one with its shortcut and options (YAML values) changed.

    Raises ``ConfigError`` for an unknown name or option.
    """
    from resnetlab.models.zoo import model_config

    overrides = read_values(recipe.options)
    for key in overrides.keys() & {"num_classes", "in_chans", "image_size"}:
        raise ConfigError(f"{key} is no option: the data decides it")
    if "shortcut" in overrides:
        raise ConfigError("shortcut is no option: it is a setting of its own, --shortcut")
    if recipe.shortcut != "default":
        overrides["shortcut"] = None if recipe.shortcut == "none" else recipe.shortcut
    return model_config(recipe.model, **overrides)


def read_values(texts: Mapping[str, str]) -> dict[str, Any]:
    """Each text as the YAML value that it is: ``"[16, 32]"`` a list, ``"true"`` a truth.

    Raises ``ConfigError`` for a text that is none.
    """
    import yaml

    try:
        return {key: yaml.safe_load(text) for key, text in texts.items()}
    except yaml.YAMLError as error:
        raise ConfigError(f"an option is no YAML value: {error}") from error


def claim_folder(recipe: Recipe, out: Path, *, resume: bool) -> bool:
    """Whether ``out`` already holds this run; if not, it is vacant.

    Raises ``ConfigError`` where it holds anything else, or this run and ``resume`` is not set.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; give a folder for the run")
    if not (out / RECIPE).is_file():
        if not is_vacant(out):
            raise ConfigError(f"{out} is not empty and holds no run; choose another folder")
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


def differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Each setting that differs, as ``training.epochs: 8 → 10``."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old} → {new}")
    return found


def write_recipe(path: Path, recipe: Recipe) -> None:
    """The recipe as YAML, which ``read_recipe`` reads."""
    import yaml

    atomic_write(path, yaml.safe_dump(as_plain(recipe), sort_keys=False, allow_unicode=True))


def read_recipe(path: Path) -> Recipe:
    """Raises ``DataError`` where the file is missing or is no recipe."""
    import yaml

    if not path.is_file():
        raise DataError(f"{path.parent} holds no run (it has no {path.name})")
    try:
        return from_plain(Recipe, yaml.safe_load(path.read_text()), str(path))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
