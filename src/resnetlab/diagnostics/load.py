"""The network that is asked about, with its images: from a run's folder, a file of weights, or by name."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from resnetlab.core.errors import ConfigError
from resnetlab.train.recipe import Recipe, recipe_data, recipe_network
from resnetlab.train.run import RECIPE, restored_network

if TYPE_CHECKING:
    from torch import nn

    from resnetlab.data.dataset import ImageData

INITIAL = "at initialisation"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network with its images and the recipe that makes it. ``state`` says how it came by its weights; ``run`` is
    whether they come from a run."""

    net: "nn.Module"
    data: "ImageData"
    recipe: Recipe
    state: str
    run: bool
    trained: bool
    notes: list[str]

    @property
    def name(self) -> str:
        """The network's name, with the shortcut option where that is not its own."""
        option = self.recipe.shortcut
        return self.recipe.model + ("" if option == "default" else f" (shortcut {option})")

    def before(self) -> "Subject":
        """The same network as its run began with it."""
        net, _ = recipe_network(self.recipe, self.data)
        state = INITIAL if self.recipe.weights is None else "as its run began"
        return replace(self, net=net, state=state, trained=False, run=False, notes=[])


def from_run(folder: Path, which: Literal["last", "best"], other: Recipe | None = None) -> Subject:
    """The trained network of a run, on the run's own data or, where ``other`` is given, on that recipe's.

    Raises ``ConfigError`` where the other data have another number of classes, channels or pixels.
    """
    from resnetlab.train.checkpoint import read_checkpoint

    net, data, recipe = restored_network(folder, which)
    notes = []
    if other is not None:
        own, data = data, recipe_data(other)
        for what, ours, theirs in (
            ("classes", len(own.classes), len(data.classes)),
            ("channels", own.in_chans, data.in_chans),
            ("pixels a side", own.image_size, data.image_size),
        ):
            if ours != theirs:
                raise ConfigError(
                    f"{data.source} has {theirs} {what}, the run in {folder} was trained with {ours}; "
                    "give data of the same form, or leave --data out for the run's own"
                )
        data = replace(data, standard=own.normalisation)
        notes.append(f"{data.source} is not what the run was trained on; it is standardised as that was")
    epochs = len(read_checkpoint(folder / which).history)
    state = f"after {epochs} epoch{'' if epochs == 1 else 's'}"
    return Subject(net=net, data=data, recipe=recipe, state=state, run=True, trained=True, notes=notes)


def from_recipe(recipe: Recipe) -> Subject:
    """The network of a recipe with the weights that it starts from: initial ones, those of a file, or of the Hub."""
    data = recipe_data(recipe)
    net, notes = recipe_network(recipe, data)
    state = INITIAL if recipe.weights is None else f"weights of {recipe.weights}"
    trained = recipe.weights is not None
    return Subject(net=net, data=data, recipe=recipe, state=state, run=False, trained=trained, notes=notes)


def find_subject(
    source: str,
    *,
    model: str | None,
    data: str | None,
    which: Literal["last", "best"],
    recipe: Recipe,
) -> Subject:
    """What ``source`` names: the folder of a run, a file or folder of weights of the network ``model``, or a network.

    ``recipe`` has the settings of a network that no run describes; ``data`` is None for the run's own, or digits.

    Raises ``ConfigError`` for a name that is no network, and where ``model`` is missing or in vain.
    """
    if data is not None:
        recipe = replace(recipe, data=data)
    if (Path(source) / RECIPE).is_file():
        if model is not None:
            raise ConfigError(f"--model {model} is not possible: the run in {source} says which network it is")
        return from_run(Path(source), which, recipe if data is not None else None)
    if Path(source).exists() and Path(source).is_dir() and model is None:
        raise ConfigError(f"{source} holds no run (it has no {RECIPE}); name the network of its weights with --model")
    if Path(source).exists():
        if model is None:
            raise ConfigError(f"{source} holds weights and no network; name it with --model, such as --model resnet50")
        return from_recipe(replace(recipe, model=model, weights=source))
    if model is not None or "/" in source:
        raise ConfigError(f"{source} does not exist; give a run's folder, a file of weights, or a network's name")
    name, _, tag = source.partition(".")
    return from_recipe(replace(recipe, model=name, weights=source if tag else None))


def find_control(folder: Path, which: Literal["last", "best"], subject: Subject) -> Subject:
    """The run of the plain twin. Raises ``ConfigError`` where it is not plain, has another number of blocks, or was
    trained on other data."""
    from resnetlab.models.blocks import ResidualBlock

    control = from_run(folder, which)
    if has_shortcuts(control.net):
        raise ConfigError(f"the run in {folder} is no control: {control.recipe.model} has shortcuts; give a plain net")
    ours, theirs = (sum(isinstance(part, ResidualBlock) for part in one.net.modules()) for one in (subject, control))
    if ours != theirs:
        raise ConfigError(
            f"the run in {folder} is no control: {control.recipe.model} has {theirs} blocks, {subject.recipe.model} "
            f"has {ours}; give its plain twin"
        )
    if control.data.fingerprint["sha256"] != subject.data.fingerprint["sha256"]:
        raise ConfigError(
            f"the run in {folder} is no control: it was trained on other data ({control.data.source}, not "
            f"{subject.data.source})"
        )
    return control


def has_shortcuts(net: "nn.Module") -> bool:
    """Whether some block of the network adds its input."""
    from resnetlab.models.blocks import ResidualBlock

    return any(isinstance(module, ResidualBlock) and module.shortcut is not None for module in net.modules())
