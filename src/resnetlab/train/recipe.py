"""A recipe is model + data + training + seed, read from YAML, checked, and built; and the recipes that are shipped."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from resnetlab.core.config import build_settings, command_of, parse_yaml, read_yaml, yaml_text
from resnetlab.core.errors import ConfigError, DataError, listed, require, require_choice
from resnetlab.core.files import atomic_write
from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.data.config import ARRAYS, DecodeConfig
from resnetlab.records.run import upgrade_recipe
from resnetlab.train.config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from resnetlab.data.config import Check
    from resnetlab.data.dataset import ImageData
    from resnetlab.models.config import NetConfig

BESIDE, IN_A_CLONE = Path(__file__).parent.parent / "recipes", Path(__file__).parents[3] / "recipes"
"""Where the shipped recipes are: inside the installed package, where the wheel has put them; at the top of a clone or
an unpacked sdist."""
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".th", ".tar", ".ckpt", ".bin", ".npz", ".h5")

ShortcutChoice = Literal["default", "A", "B", "C", "none", "scaled", "gated", "highway", "dropout"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run.

    Raises ``ConfigError`` for values that make no run.
    """

    model: str = "cifar_resnet20"
    """Name of the network; resnetlab list shows them."""
    shortcut: ShortcutChoice = "default"
    """Shortcut option of the paper; none makes the net plain, default is what the name stands for. scaled, gated,
    highway and dropout are option A with a gate."""
    options: dict[str, str] = field(default_factory=dict)
    """Further settings of the network by name and value, such as: norm group, or: zero_init_residual true."""
    weights: str | None = None
    """Weights to start from: a file, a run's folder, or name.tag of the Hub. A head of other classes is
    re-initialised."""
    data: str = "digits"
    """digits, a folder of images, or a source and its place, such as idx:FOLDER or parquet:FOLDER. Behind a folder,
    Parquet or the Hub, [train=a,test=b] says which parts are which."""
    validation: bool = True
    """Choose the best epoch by validation images: the data's own, or a tenth of each class held out of training.
    Without, all training images are trained on and the last epoch is kept as the best."""
    split_seed: int = 0
    """Decides the split of data that comes without one, and which images are held out."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """How images and labels are read."""
    seed: int = 0
    """Decides initial weights, order of the images and everything else that is random."""
    trace: Literal["gradients", "all"] = "gradients"
    """What is measured after 0, 1, 2, 4, 8 … steps: gradients by depth, or all: how alike those of neighbouring images
    and of half batches are, how far a step moves the weights, and the rank of the features, for two more passes."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """How it is trained."""

    def __post_init__(self) -> None:
        require_choice("shortcut", self.shortcut, get_args(ShortcutChoice))
        require_choice("trace", self.trace, ("gradients", "all"))
        for key, value in self.options.items():
            require(isinstance(value, str), f"option {key}", value, "written as text, such as 'true' or '[16, 32]'")
        require(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to 2^63 - 1")
        require(0 <= self.split_seed < 2**32, "split_seed", self.split_seed, "from 0 to 2^32 - 1")

    @classmethod
    def upgrade(cls, plain: dict[str, Any]) -> dict[str, Any]:
        """The recipe of a run of version 0.1.0, which had no validation, by the names of today."""
        return upgrade_recipe(plain)


def recipe_data(recipe: Recipe, on_progress: "Callable[[int, int], None] | None" = None) -> "ImageData":
    """The recipe's images, with validation images or without; with weights ``name.tag`` standardised as these were
    trained. Of several ranks the leading one reads them first, and makes the index with which the others do.

    Raises ``DataError`` for what cannot be read.
    """
    from resnetlab.data.dataset import Normalisation
    from resnetlab.data.sources import load_data
    from resnetlab.train.distributed import leading_first

    standard = None
    if (tag := hub_tag(recipe)) is not None:
        from resnetlab.models.pretrained import PRETRAINED

        given = PRETRAINED[tag].preprocessing
        mean, std = (tuple(255 * value for value in values) for values in (given.mean, given.std))
        standard = Normalisation(mean=mean, std=std)

    def read(check: "Check", on_progress: "Callable[[int, int], None] | None") -> "ImageData":
        decode = replace(recipe.decode, check=check)
        return load_data(recipe.data, recipe.split_seed, decode, on_progress, standard=standard)

    return choose_splits(leading_first(read, recipe.decode.check, on_progress), recipe)


def choose_splits(data: "ImageData", recipe: Recipe) -> "ImageData":
    """The set as the recipe uses it.

    With validation a set that has none gives a tenth of each class of its training images. Without, validation images
    are left out, but for a set that has no test: there they are what is reported.
    """
    from resnetlab.data.dataset import hold_out

    if recipe.validation:
        return hold_out(data, recipe.split_seed) if data.validation is None else data
    return data if data.test is None else replace(data, validation=None)


def hub_tag(recipe: Recipe) -> str | None:
    """The ``name.tag`` of the recipe's weights, where they are the Hub's and no file."""
    if recipe.weights is None or Path(recipe.weights).exists():
        return None

    from resnetlab.models.pretrained import default_tag

    # A dot is part of a tag, but no tag ends like a file.
    if "/" not in recipe.weights and Path(recipe.weights).suffix not in WEIGHT_FILES:
        return default_tag(recipe.weights)
    raise DataError(f"{recipe.weights} does not exist; give a file of weights, a run's folder, or name.tag of the Hub")


def recipe_network(recipe: Recipe, data: "ImageData", device: str = "cpu") -> tuple["nn.Module", list[str]]:
    """The recipe's network fitted to the data, with its initial weights or those it starts from, and what was done.

    Raises ``ConfigError`` for an unknown name or option, ``CheckpointError`` for weights that do not fit.
    """
    from resnetlab.models.init import build
    from resnetlab.models.pretrained import fetch
    from resnetlab.models.weights import load_weights

    net = build(fitted_config(recipe, data), seed=recipe.seed, device=device)
    if recipe.weights is None:
        return net, []
    tag = hub_tag(recipe)
    path = Path(recipe.weights) if tag is None else fetch(tag)
    # A run's folder stands for its best epoch.
    path = path / "best" if (path / "best").is_dir() else path
    return net, [str(load_weights(net, path, reset_head=True, adapt_input=True))]


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
    """Each text as the YAML value that it is: ``"[16, 32]"`` a list, ``"true"`` a boolean.

    Raises ``ConfigError`` for a text that is not YAML.
    """
    try:
        return {key: parse_yaml(text, f"option {key}") for key, text in texts.items()}
    except DataError as error:
        raise ConfigError(str(error)) from error


def recipe_command(plain: Mapping[str, Any], out: str = "RUN") -> str:
    """The command that trains the recipe, given in its plain form, with every setting that is not the default; where
    something would be chosen besides, it says not to."""
    scheme, training = str(plain.get("data")).partition(":")[0], plain.get("training") or {}
    # Of large arrays nothing is chosen but evaluate_train.
    open_ = scheme != "digits" and training.get("evaluate_train") != "end" if scheme in ARRAYS else True
    words = ["--no-choose"] if open_ else []
    return command_of("train", out, plain, as_plain(Recipe()), words)


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


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the settings in a checkpoint and those of today, of the entries that both have.

    A setting that the checkpoint's version did not know had its default value.
    """
    kinds: dict[str, type] = {"recipe": Recipe, "training": TrainConfig}
    found = []
    for name in [name for name in before if name in now]:
        old, kind = before[name], kinds.get(name)
        if kind is None:
            found += differences({name: old}, {name: now[name]})
        else:
            found += differences(as_plain(from_plain(kind, old, f"the {name} of the checkpoint")), now[name])
    return found


def write_recipe(path: Path, recipe: Recipe) -> None:
    """The recipe as YAML, which ``read_recipe`` reads."""
    atomic_write(path, recipe_text(recipe))


def recipe_text(recipe: Recipe) -> str:
    """Every setting of the recipe as YAML."""
    return yaml_text(as_plain(recipe), sort_keys=False)


def read_recipe(path: Path) -> Recipe:
    """The recipe of a run's folder. Raises ``DataError`` where the file is missing or is no recipe."""
    if not path.is_file():
        raise DataError(f"{path.parent} holds no run (it has no {path.name})")
    return from_plain(Recipe, read_yaml(path), str(path))


def load_recipe(path: Path) -> Recipe:
    """The recipe that a user wrote. What it leaves out has its default value.

    Raises ``DataError`` where the file is missing or is no YAML, ``ConfigError`` for an unknown key, with the nearest
    known one, and for values that make no run.
    """
    return recipe_from(read_mapping(path), path)


def read_mapping(path: Path) -> dict[str, Any]:
    """The settings in a file that a user wrote, or in the shipped recipe of that name. Raises as ``load_recipe``
    does."""
    plain = read_yaml(find_recipe(path))
    if not isinstance(plain, dict):
        raise ConfigError(f"{path} is no recipe: it must hold settings such as 'model: cifar_resnet20'")
    return plain


def shipped_recipes() -> dict[str, Path]:
    """The files of the recipes that are shipped, by name, such as ``digits/resnet20``."""
    folder = BESIDE if BESIDE.is_dir() else IN_A_CLONE
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def shipped_name(path: Path) -> str | None:
    """The name of the shipped recipe that is meant: ``digits/resnet20``, with ``recipes/`` and ``.yaml`` or without."""
    name = path.as_posix().removeprefix("recipes/").removesuffix(".yaml")
    return name if name in shipped_recipes() else None


def find_recipe(path: Path) -> Path:
    """The file itself where it exists, else that of the shipped recipe of this name.

    Raises ``DataError`` where there is neither, naming the shipped ones, the nearest first.
    """
    if path.is_file():
        return path
    shipped, name = shipped_recipes(), shipped_name(path)
    if name is not None:
        return shipped[name]
    nearest = sorted(shipped, key=lambda one: -SequenceMatcher(None, one, path.as_posix()).ratio())
    raise DataError(
        f"there is no recipe {path}; give the path of a YAML file, settings as flags, such as --model resnet18, or one "
        f"of those that resnetlab recipes lists: {listed(nearest)}"
    )


def recipe_header(path: Path) -> dict[str, str]:
    """What the comment at the top of a recipe says, on one line each: ``what`` it is, ``command``, ``source``,
    ``cost``, ``expected`` and others."""
    text = re.match(r"(?:#.*\n)*", path.read_text(encoding="utf-8"))
    lines = [line[1:].strip() for line in text.group().splitlines()] if text else []
    fields = re.findall(r"^(\w+): +(.*(?:\n(?!\w+: ).*)*)", "\n".join(lines[1:]), re.MULTILINE)
    return {"what": lines[0] if lines else ""} | {name: " ".join(value.split()) for name, value in fields}


def recipe_from(plain: dict[str, Any], path: Path) -> Recipe:
    """The recipe of such settings, which came from ``path``. Raises ``ConfigError`` as ``load_recipe`` does."""
    if isinstance(plain.get("training"), dict):
        check_best_by(plain["training"].get("best_by"))
    if isinstance(plain.get("options"), dict):
        plain["options"] = {key: as_text(value) for key, value in plain["options"].items()}
    try:
        return build_settings(Recipe, plain)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def check_best_by(value: object) -> None:
    """Raise ``ConfigError`` for a ``best_by`` of version 0.1.0, with what to say now."""
    if value in ("test_error", "test_loss"):
        now = str(value).replace("test", "validation")
        raise ConfigError(f"best_by={value!r} is not possible: validation chooses, test reports; say {now}")


def as_text(value: Any) -> str:
    """A value as the YAML text that stands for it; a text as it is."""
    if isinstance(value, str):
        return value
    return yaml_text(value, default_flow_style=True, width=inf).removesuffix("...\n").strip()
