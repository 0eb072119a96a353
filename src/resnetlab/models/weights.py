"""Load weights of other projects into our networks, and export ours under their names; every tensor is reported."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from resnetlab.core.errors import CheckpointError, ConfigError
from resnetlab.models.init import HEAD
from resnetlab.models.key_mapping import OURS, TheirTensor, find_dialect, head_names, their_names
from resnetlab.models.weight_files import Entry, open_state

_COUNTERS = ".num_batches_tracked"
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_HEADS = ("head.weight", "fc.weight", "head.fc.weight", "classifier.6.weight", "linear.weight", "1.weight")
_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What happened to every tensor of the source and of the network.

    - ``matched``: loaded under the same name. ``renamed``: (their name, ours).
    - ``adapted``: (our name, what was done), for the first convolution under ``adapt_input``.
    - ``skipped``: in the source, not used. ``missing``: in the network, left as it was.
    """

    origin: str
    dialect: str
    matched: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    adapted: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        parts = ("matched", "renamed", "adapted", "skipped", "missing")
        counts = ", ".join(f"{len(getattr(self, part))} {part}" for part in parts)
        lines = [f"{self.origin}: names of {self.dialect}; {counts}"]
        lines += [f"  adapted {name}: {how}" for name, how in self.adapted]
        lines += [f"  {part} {_some(getattr(self, part))}" for part in ("skipped", "missing") if getattr(self, part)]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Which tensor of the source goes where, checked before any is read."""

    loaded: dict[str, str]
    adapted: dict[str, str]
    skipped: list[str]
    missing: list[str]
    faults: list[str]


def load_weights(
    model: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    *,
    reset_head: bool = False,
    adapt_input: bool = False,
) -> LoadReport:
    """Load weights of this or another project into ``model``, in place; the names tell which project's they are.

    ``source`` is a ``.safetensors``, ``.pth``, ``.pt`` or ``.th`` file, a checkpoint folder, or a state dict. Names and
    shapes are checked before any tensor is read, and a refusal leaves the network as it was.

    ``reset_head`` leaves out a head that is missing or of another number of classes: the network keeps its own.
    ``adapt_input`` fits the first convolution W of I channels to C channels so that equal channels give the same map
    as before: for C = 1 the sum over I, else W tiled to C channels and multiplied by I/C (as timm does). The counters
    ``num_batches_tracked`` may be missing.

    Raises ``CheckpointError`` for what is damaged, wants to run code, or does not fit, with what would make it fit.

    >>> print(load_weights(create_model("resnet50"), "resnet50-0676ba61.pth"))
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ConfigError(
            "the network is on the meta device and has no memory to load into; build it with device='cpu'"
        )
    origin, entries = open_state(source)
    try:
        dialect = find_dialect(entries)
        theirs = their_names(model, dialect)
        heads = head_names(model, dialect)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{origin}: {error}") from error
    plan = _make_plan(model, entries, theirs, heads, reset_head=reset_head, adapt_input=adapt_input)
    if plan.faults:
        raise CheckpointError(
            f"{origin} (names of {dialect}) does not fit this network: {'; '.join(plan.faults[:_SHOWN])}"
            + (f"; and {len(plan.faults) - _SHOWN} more" if len(plan.faults) > _SHOWN else "")
        )
    _copy(model, entries, plan)
    return LoadReport(
        origin=origin,
        dialect=dialect,
        matched=tuple(own for own, name in plan.loaded.items() if own == name and own not in plan.adapted),
        renamed=tuple((name, own) for own, name in plan.loaded.items() if own != name and own not in plan.adapted),
        adapted=tuple(plan.adapted.items()),
        skipped=tuple(plan.skipped),
        missing=tuple(plan.missing),
    )


def export_weights(model: nn.Module, dialect: str = OURS) -> dict[str, Tensor]:
    """The network's state dict under another project's names and shapes, which that project loads strictly.

    Raises ``ConfigError`` where that project has no such network.
    """
    names = their_names(model, dialect)
    tensors = model.state_dict()
    return {
        theirs.name: tensors[own].detach().cpu().reshape(theirs.shape).contiguous() for own, theirs in names.items()
    }


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a file of weights holds: whose names, every shape, and the classes of the head (0 where it has none).

    ``parameters`` counts no statistics of norms.
    """

    dialect: str
    shapes: dict[str, tuple[int, ...]]
    parameters: int
    classes: int


def inspect_weights(source: str | Path | Mapping[str, Tensor]) -> Inspection:
    """What ``source`` holds, read from names and shapes alone. Raises ``CheckpointError`` as ``load_weights`` does."""
    origin, entries = open_state(source)
    try:
        dialect = find_dialect(entries)
    except CheckpointError as error:
        raise CheckpointError(f"{origin}: {error}") from error
    shapes = {name: entry.shape for name, entry in entries.items()}
    heads = [shape[0] for name, shape in shapes.items() if name in _HEADS and len(shape) > 1]
    return Inspection(
        dialect=dialect,
        shapes=shapes,
        parameters=sum(prod(shape) for name, shape in shapes.items() if not name.endswith(_BUFFERS)),
        classes=heads[-1] if heads else 0,
    )


def _make_plan(
    model: nn.Module,
    entries: dict[str, Entry],
    theirs: dict[str, TheirTensor],
    heads: tuple[str, str],
    *,
    reset_head: bool,
    adapt_input: bool,
) -> _Plan:
    plan = _Plan(loaded={}, adapted={}, skipped=[], missing=[], faults=[])
    first = _first_convolution(model)
    ours = model.state_dict()
    own_heads = [own for own in ours if own.startswith(f"{HEAD}.")]
    new_head = reset_head and any(
        theirs[own].name not in entries or entries[theirs[own].name].shape != theirs[own].shape for own in own_heads
    )
    for own, (name, shape) in theirs.items():
        entry = entries.get(name)
        if own in own_heads and new_head:
            plan.missing.append(own)
        elif entry is None:
            _note_absent(plan, own, name, own in own_heads)
        elif entry.floating != ours[own].is_floating_point():
            plan.faults.append(f"{name!r} is not of the same kind of number as {own!r}")
        elif entry.shape == shape:
            plan.loaded[own] = name
        elif own == first and _differs_in_input(entry.shape, shape):
            _note_input(plan, own, name, entry.shape[1], shape[1], adapt_input)
        else:
            remedy = "; pass reset_head=True (--reset-head) to start a new head" if own in own_heads else ""
            plan.faults.append(f"{name!r} has shape {entry.shape}, the network has {shape}{remedy}")
    _note_rest(plan, entries, {name for name, _ in theirs.values()}, heads, reset_head, new_head)
    return plan


def _note_absent(plan: _Plan, own: str, name: str, head: bool) -> None:
    if own.endswith(_COUNTERS):
        plan.missing.append(own)
    else:
        remedy = "; pass reset_head=True (--reset-head) to start a new head" if head else ""
        plan.faults.append(f"{name!r} is missing{remedy}")


def _note_input(plan: _Plan, own: str, name: str, before: int, after: int, adapt_input: bool) -> None:
    if not adapt_input:
        plan.faults.append(
            f"{name!r} takes {before} input channels, the network {after}; "
            "pass adapt_input=True (--adapt-input) to fit it"
        )
        return
    plan.loaded[own] = name
    how = "summed" if after == 1 else f"tiled, times {before}/{after}"
    plan.adapted[own] = f"{before} input channels to {after}: {how}"


def _note_rest(
    plan: _Plan, entries: dict[str, Entry], known: set[str], heads: tuple[str, str], reset_head: bool, new_head: bool
) -> None:
    for name, entry in entries.items():
        if name in heads and (new_head or (reset_head and name not in known)):
            plan.skipped.append(name)
        elif name not in known:
            remedy = "; pass reset_head=True (--reset-head) to leave the head out" if name in heads else ""
            plan.faults.append(f"{name!r} of shape {entry.shape} has no place in the network{remedy}")


def _copy(model: nn.Module, entries: dict[str, Entry], plan: _Plan) -> None:
    ours = model.state_dict()
    # All are read before the first is written, so that a disk that fails leaves the network as it was.
    values = {}
    for own, name in plan.loaded.items():
        value = entries[name].read()
        values[own] = (
            adapt_channels(value, ours[own].shape[1]) if own in plan.adapted else value.reshape(ours[own].shape)
        )
    with torch.no_grad():
        for own, value in values.items():
            ours[own].copy_(value)


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weight ``(O, I, h, w)`` as ``(O, channels, h, w)``, the same for inputs of equal channels.

    For one channel the sum over I; else tiled and cut to ``channels``, times I / ``channels``: what
    ``timm.models.adapt_input_conv`` does from three channels.
    """
    before = weight.shape[1]
    if channels == 1:
        return weight.float().sum(dim=1, keepdim=True)
    copies = -(-channels // before)
    return weight.float().repeat(1, copies, 1, 1)[:, :channels] * (before / channels)


def _first_convolution(model: nn.Module) -> str:
    names = (f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    return next(names, "")


def _differs_in_input(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(given) == len(wanted) == 4 and (given[0], *given[2:]) == (wanted[0], *wanted[2:]) and given[1] > 0


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
