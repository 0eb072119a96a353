"""Prune a run's trained network: leave blocks out, write the rest as a bundle, and say what that costs."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from resnetlab.core.errors import ConfigError
from resnetlab.core.files import read_json, require_vacant
from resnetlab.core.serialize import as_plain
from resnetlab.records.run import Metrics, ReportedSplit
from resnetlab.train.folder import DATA
from resnetlab.train.recipe import Recipe, as_text
from resnetlab.train.run import evaluate_restored, restored_network

if TYPE_CHECKING:
    from torch import nn

    from resnetlab.models.classifier import Classifier

SHOWN = 12
"""Blocks that an error names."""


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What was left out and what it costs: parameters, and loss and error on ``split``, not retrained.

    ``recipe`` builds the smaller network and starts from its weights.
    """

    blocks: list[str]
    split: ReportedSplit
    parameters_before: int
    parameters_after: int
    before: Metrics
    after: Metrics
    recipe: Recipe


def prune_run(
    folder: Path,
    blocks: Collection[str],
    out: Path,
    which: Literal["last", "best"] = "last",
    place: str | None = None,
    white: int | None = None,
) -> Pruning:
    """Write the network of the run in ``folder`` without ``blocks`` as a bundle to ``out``; the run stays as it is.
    ``place`` is where its data are now, if they have moved; ``white`` as of ``load``.

    Raises ``ConfigError`` where ``out`` is not vacant, where no block is named, and for blocks that cannot go, with
    those that can; else as ``run.restored_network`` does.
    """
    from resnetlab.deploy.export import ExportConfig, write_bundle
    from resnetlab.deploy.load import TrainedNetwork, recorded_preprocessing

    if not blocks:
        raise ConfigError("no block is named; give those to leave out, such as --without stages.2.1")
    require_vacant(out, "smaller network")
    net, data, recipe = restored_network(folder, which, place)
    preprocessing = recorded_preprocessing(read_json(folder / DATA), folder, white)
    smaller = without_blocks(net, blocks)
    names = sorted(set(blocks))
    pruning = Pruning(
        blocks=names,
        split=data.reported_split,
        parameters_before=_size(net),
        parameters_after=_size(smaller),
        before=evaluate_restored(net, data, recipe),
        after=evaluate_restored(smaller, data, recipe),
        recipe=Recipe(
            model=recipe.model,
            shortcut=recipe.shortcut,
            options=recipe.options | _changed_options(net, smaller),
            weights=str(out),
            data=recipe.data,
            validation=recipe.validation,
            split_seed=recipe.split_seed,
            decode=recipe.decode,
        ),
    )
    after = pruning.after
    trained = TrainedNetwork(
        net=smaller.cpu().eval(),
        classes=data.classes,
        preprocessing=preprocessing,
        model=recipe.model,
        origin=folder,
        recipe=as_plain(pruning.recipe),
        results={"split": pruning.split, "accuracy": 1 - after.error, "loss": after.loss, "n": after.n},
    )
    note = (
        f"It is without {', '.join(names)} and was not trained since; its {pruning.split} error was "
        f"{pruning.before.error:.2%} before."
    )
    write_bundle(trained, data, out, ExportConfig(), note=note)
    return pruning


def without_blocks(net: "nn.Module", blocks: Collection[str]) -> "Classifier":
    """``drop_blocks``, whose errors here name the blocks that can go, too."""
    from resnetlab.models.surgery import drop_blocks, droppable_blocks

    try:
        return drop_blocks(net, blocks)
    except ConfigError as error:
        free = droppable_blocks(net)
        names = ", ".join(free[:SHOWN]) + (f" and {len(free) - SHOWN} more" if len(free) > SHOWN else "")
        raise ConfigError(f"{error} (those that can go, each alone: {names or 'none'})") from error


def _changed_options(net: "nn.Module", smaller: "nn.Module") -> dict[str, str]:
    """The options of the configuration that surgery has changed: the depths."""
    before, after = as_plain(net.config), as_plain(smaller.config)
    return {key: as_text(value) for key, value in after.items() if value != before[key]}


def _size(net: "nn.Module") -> int:
    return sum(parameter.numel() for parameter in net.parameters())
