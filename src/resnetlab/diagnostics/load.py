"""The network that is diagnosed, with its images: from a run's folder, a file of weights, by name, or in memory."""

from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.diagnostics.config import DiagnosisConfig
from resnetlab.train.folder import RECIPE, begun_weights, data_places
from resnetlab.train.recipe import Recipe, read_recipe, recipe_data, recipe_network
from resnetlab.train.run import restored_network

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from resnetlab.data.dataset import ImageData
    from resnetlab.data.torch_datasets import OwnData
    from resnetlab.models.blocks import ResidualBlock

INITIAL = "at initialisation"
UNTRAINED = "it is not trained; train it first, or give its weights"


@dataclass(frozen=True, kw_only=True)
class DiagnosedNet:
    """A network with its images and the recipe that makes it, which a network in memory has not.

    ``state`` says how it came by its weights; ``run`` is the folder of the run that they come from.
    """

    net: "nn.Module"
    data: "ImageData"
    recipe: Recipe | None
    state: str
    trained: bool
    run: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def model(self) -> str:
        """The network's name in the zoo, or that of its class."""
        return type(self.net).__name__ if self.recipe is None else self.recipe.model

    @property
    def name(self) -> str:
        """The model, with the shortcut option where that is not the model's own."""
        option = "default" if self.recipe is None else self.recipe.shortcut
        return self.model + ("" if option == "default" else f" (shortcut {option})")

    @property
    def device(self) -> "torch.device":
        return next(self.net.parameters()).device

    @property
    def blocks(self) -> "list[ResidualBlock]":
        """The network's blocks, from the input on."""
        from resnetlab.models.blocks import ResidualBlock

        return [module for module in self.net.modules() if isinstance(module, ResidualBlock)]

    @property
    def has_shortcuts(self) -> bool:
        """Whether some block adds its input."""
        return any(block.shortcut is not None for block in self.blocks)

    def to(self, device: "torch.device") -> "DiagnosedNet":
        """The same with its network on another device."""
        return replace(self, net=self.net.to(device))

    def at_start(self) -> "DiagnosedNet":
        """The same network as its run began with it."""
        assert self.recipe is not None
        assert self.run is not None
        net, _ = recipe_network(begun_weights(self.run, self.recipe), self.data)
        state = INITIAL if self.recipe.weights is None else "as its run began"
        return replace(self, net=net, state=state, trained=False, run=None, notes=[]).to(self.device)


def load_run(
    folder: Path, which: Literal["last", "best"], other: Recipe | None = None, place: str | None = None
) -> DiagnosedNet:
    """The trained network of a run, on the run's own data or, where ``other`` is given, on that recipe's.

    Where the run's own are no longer there, ``other`` says where they are now; ``place`` says it always. Raises
    ``ConfigError`` where the other data have another number of classes, channels or pixels.
    """
    from resnetlab.train.checkpoint import read_checkpoint

    moved = other is not None and not _has_data(folder)
    net, data, recipe = restored_network(folder, which, other.data if other is not None and moved else place)
    other = None if moved else other
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
    return DiagnosedNet(net=net, data=data, recipe=recipe, state=state, trained=True, run=folder, notes=notes)


def _has_data(folder: Path) -> bool:
    """Whether the data of the run are still found."""
    try:
        return bool(data_places(folder, read_recipe(folder / RECIPE).data))
    except DataError:
        return False


def load_recipe(recipe: Recipe) -> DiagnosedNet:
    """The network of a recipe with the weights that it starts from: initial ones, those of a file, or of the Hub."""
    data = recipe_data(recipe)
    net, notes = recipe_network(recipe, data)
    state = INITIAL if recipe.weights is None else f"weights of {recipe.weights}"
    return DiagnosedNet(net=net, data=data, recipe=recipe, state=state, trained=recipe.weights is not None, notes=notes)


def load_source(source: str, config: DiagnosisConfig) -> DiagnosedNet:
    """What ``source`` names: the folder of a run, a file or folder of weights of ``config.model``, or a network.

    Raises ``ConfigError`` for what is none of these, and where ``model`` is missing or in vain.
    """
    model, recipe = config.model, config.recipe
    if config.data is not None:
        recipe = replace(recipe, data=config.data)
    if (Path(source) / RECIPE).is_file():
        if model is not None:
            raise ConfigError(f"--model {model} is not possible: the run in {source} says which network it is")
        return load_run(Path(source), config.checkpoint, recipe if config.data is not None else None)
    if Path(source).exists():
        if model is None:
            what = f"no run (it has no {RECIPE})" if Path(source).is_dir() else "weights and no network"
            raise ConfigError(f"{source} holds {what}; name the network of its weights with --model, such as resnet50")
        return load_recipe(replace(recipe, model=model, weights=source))
    if model is not None or "/" in source:
        raise ConfigError(f"{source} does not exist; give a run's folder, a file of weights, or a network's name")
    name, _, tag = source.partition(".")
    _require_known(name)
    return load_recipe(replace(recipe, model=name, weights=source if tag else None))


def _require_known(name: str) -> None:
    """Raise ``ConfigError`` unless it is a network's name: it could as well have been that of a folder."""
    from resnetlab.models.zoo import model_config

    try:
        model_config(name)
    except ConfigError as error:
        raise ConfigError(f"{name} is neither a folder or file that exists nor a network's name: {error}") from None


def load_plain(folder: Path, which: Literal["last", "best"], asked: DiagnosedNet) -> DiagnosedNet:
    """The run of the plain counterpart. Raises ``ConfigError`` where it is not plain, has another number of blocks, or
    was trained on other data."""
    plain = load_run(folder, which)
    if plain.has_shortcuts:
        raise ConfigError(f"the run in {folder} is no control: {plain.model} has shortcuts; give a plain net")
    if len(plain.blocks) != len(asked.blocks):
        raise ConfigError(
            f"the run in {folder} is no control: {plain.model} has {len(plain.blocks)} blocks, {asked.model} "
            f"has {len(asked.blocks)}; give its plain counterpart"
        )
    if plain.data.fingerprint["sha256"] != asked.data.fingerprint["sha256"]:
        raise ConfigError(
            f"the run in {folder} is no control: it was trained on {_images_of(plain)}, not on {_images_of(asked)}"
        )
    return plain


def _images_of(net: DiagnosedNet) -> str:
    train, test = (len(split) if split is not None else 0 for split in (net.data.train, net.data.test))
    return f"{net.data.source} (training {train:,}, test {test:,} images)"


def in_memory(net: "nn.Module", data: "OwnData") -> DiagnosedNet:
    """A network as it is, which counts as trained, with a set of images, data of your own, or a pair of images and
    labels."""
    from torch import Tensor

    from resnetlab.data.torch_datasets import as_image_data

    if isinstance(data, tuple) and isinstance(data[0], Tensor):
        found = pair_data(net, *data)
    else:
        found = as_image_data(data, alone="test", outputs=getattr(net, "num_classes", None))
    return DiagnosedNet(net=net, data=found, recipe=None, state="as given", trained=True)


def pair_data(net: "nn.Module", images: "Tensor", labels: "Tensor") -> "ImageData":
    """A set whose training and test images are ``images`` ``(N, C, H, W)``, with ``labels`` ``(N,)``.

    Images of uint8 are standardised by their own statistics, as ``fit`` does it; others go into the network as they
    are. Raises ``ConfigError`` for tensors of another form.
    """
    import torch

    from resnetlab.data.dataset import ImageData, Normalisation, Split
    from resnetlab.train.evaluate import eval_mode

    if images.dim() != 4 or labels.shape != images.shape[:1] or not len(labels) or labels.is_floating_point():
        raise ConfigError(
            f"images {tuple(images.shape)} and labels {tuple(labels.shape)} of {labels.dtype} are not possible: give "
            "(N, C, H, W) and (N,) whole numbers, N at least 1"
        )
    split = Split(images=images.cpu(), labels=labels.cpu().long())
    standard = None
    if images.dtype != torch.uint8:
        standard = Normalisation(mean=(0.0,) * images.shape[1], std=(1.0,) * images.shape[1])
    data = ImageData(source="tensors in memory", train=split, test=copy(split), classes=("",), standard=standard)
    device = next(net.parameters()).device
    with eval_mode(net), torch.no_grad():
        answers = net(data.normalisation.on(device)(images[:1].to(device))).shape[1]
    return replace(data, classes=tuple(map(str, range(max(answers, int(labels.max()) + 1)))))
