"""The verb ``weights``: look into files of weights, rename them to another project's names, leave blocks out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from resnetlab.cli.tables import print_columns, show

Project = Literal[
    "torchvision",
    "timm",
    "akamaster",
    "loss-landscape",
    "kuangliu",
    "weiaicunzai",
    "fixup",
    "labml",
    "keras",
    "safetensors",
]


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Show the networks in a file of weights: whose names they have, their tensors, and the classes of their heads."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """A file of safetensors, torch, numpy (.npz) or Keras (.h5), or a checkpoint folder. Nothing in it is run."""
    which: str | None = None
    """The one network to show: the key that leads to it, ema or raw."""

    def __call__(self) -> None:
        from resnetlab.models.weights import inspect_weights

        for number, found in enumerate(inspect_weights(self.file, self.which)):
            if number:
                show("")
            # A file may hold them in any order.
            shapes = sorted(found.shapes.items())
            print_columns([(name, "×".join(map(str, shape)) or "1") for name, shape in shapes])
            if found.outside:
                show("", f"beside it: {', '.join(found.outside)}")
            if found.not_finite:
                show("", f"numbers that are NaN or infinite in {', '.join(found.not_finite)}")
            show("", f"architecture: {found.stated or 'not said, and names and shapes cannot tell it'}")
            head = f"{found.classes} classes" if found.classes else "no head"
            where = f"{found.label}{', an average' if found.average else ''}: " if found.label else ""
            counts = f"{len(found.shapes)} tensors, {found.parameters:,} parameters, {head}"
            show(f"{where}names of {found.dialect}; {counts}")


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Write the weights of a network under another project's names, or as safetensors under ours."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="IN")]
    """Weights under the names of any of these projects."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The .safetensors file to write."""
    to: Project
    """Whose names; safetensors is ours."""
    model: str
    """The network that the weights are of, by name."""
    set: tuple[str, ...] = ()
    """Its settings where they are not the name's own, such as pad=center."""
    which: str | None = None
    """Of several networks in IN the one to convert: the key that leads to it, ema or raw."""
    reset_head: bool = False
    """Leave a head of another number of classes out; the network gets its own."""
    adapt_input: bool = False
    """Fit the first convolution to the network's number of input channels."""

    def __call__(self) -> None:
        from safetensors.torch import save

        from resnetlab.core.errors import ConfigError
        from resnetlab.core.files import atomic_write
        from resnetlab.models.dialects import OURS
        from resnetlab.models.weights import export_weights, load_weights
        from resnetlab.models.zoo import create_model

        if self.out.suffix != ".safetensors":
            raise ConfigError(f"{self.out} is not possible: what is written is safetensors, so name it ….safetensors")
        model = create_model(self.model, pretrained=False, **read_settings(self.set))
        report = load_weights(
            model, self.source, which=self.which, reset_head=self.reset_head, adapt_input=self.adapt_input
        )
        dialect = OURS if self.to == "safetensors" else self.to
        tensors = export_weights(model, dialect)
        atomic_write(self.out, save(tensors, metadata={"format": "pt"}))
        show(*str(report).splitlines())
        show(f"{self.out}: {len(tensors)} tensors under the names of {dialect}")


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Leave blocks out of a run's trained network, keep the smaller one, and count what that costs.

    Nothing is retrained, and the run stays as it is. Only blocks that keep the shape of their input can go.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a run."""
    without: tuple[str, ...]
    """The blocks, such as stages.2.1; resnetlab diagnose RUN --what lesion tells what each is worth."""
    out: Path
    """Folder for the smaller network, a bundle."""
    checkpoint: Literal["last", "best"] = "last"
    """The last epoch of the run, or its best one."""
    data: str | None = None
    """Where the images of the run are now; by default where they were when it began, or beside the run."""
    white: int | None = None
    """The value of a white pixel in the training images, for a run that does not say it."""

    def __call__(self) -> None:
        from resnetlab.core.serialize import as_plain
        from resnetlab.deploy.prune import prune_run
        from resnetlab.train.recipe import recipe_command

        found = prune_run(self.run, self.without, self.out, self.checkpoint, self.data, self.white)
        before, after = found.before, found.after
        show(f"without {', '.join(found.blocks)}:")
        error, loss = f"{before.error:.2%} → {after.error:.2%}", f"{before.loss:.4f} → {after.loss:.4f}"
        show(f"{found.split} error {error}  loss {loss}  n {after.n}")
        show(f"parameters {found.parameters_before:,} → {found.parameters_after:,}; network in {self.out}")
        show(f"to train it on: {recipe_command(as_plain(found.recipe), 'NEW')}")


Weights = Annotated[
    Annotated[Inspect, tyro.conf.subcommand(name="inspect")]
    | Annotated[Convert, tyro.conf.subcommand(name="convert")]
    | Annotated[Prune, tyro.conf.subcommand(name="prune")],
    tyro.conf.OmitArgPrefixes,
]


def weights(action: Annotated[Weights, tyro.conf.arg(name="")]) -> Callable[[], None]:
    """Look into weights; rename them between resnetlab, torchvision, timm and others; leave blocks out."""
    return action


def read_settings(words: tuple[str, ...]) -> dict[str, Any]:
    """Settings such as ``pad=center`` or ``num_classes=10``, each value read as YAML.

    Raises ``ConfigError`` for a word without ``=`` and for a value that is no YAML.
    """
    from resnetlab.core.errors import ConfigError
    from resnetlab.train.recipe import read_values

    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise ConfigError(f"--set {wrong[0]!r} is not possible: write it as setting=value, such as pad=center")
    pairs = (word.partition("=") for word in words)
    return read_values({key: value for key, _, value in pairs})
