"""Load weights of other projects into our networks, and export ours under their names; every tensor is reported."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from resnetlab.core.errors import CheckpointError, ConfigError, listed, printable
from resnetlab.models.dialects import OURS
from resnetlab.models.init import HEAD
from resnetlab.models.key_mapping import TheirTensor, fitting_dialect, head_names, image_notes_of, their_names
from resnetlab.models.lookalikes import judge
from resnetlab.models.state_dicts import StateDict, choose_state, find_states
from resnetlab.models.weight_files import Entry, open_source

_COUNTERS = ".num_batches_tracked"
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", "moving_mean", "moving_variance")
_HEADS = (
    *("head.weight", "fc.weight", "head.fc.weight", "classifier.6.weight", "linear.weight", "1.weight"),
    "predictions/kernel",
)
_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What happened to every tensor of the source and of the network.

    - ``which``: the keys and the prefix that lead to the network in its checkpoint; ``""`` where there are none.
    - ``architecture``: what is known of it, in words. Names and shapes alone cannot say that it computes the same.
    - ``matched``: loaded under the same name. ``renamed``: (their name, ours).
    - ``adapted``: (our name, what was done), for the first convolution under ``adapt_input``.
    - ``skipped``: in the source, not used. ``missing``: in the network, left as it was.
    - ``not_finite``: (our name, how many of its numbers are NaN or infinite).
    - ``images``: how their images are preprocessed, where that is not torchvision's way.
    """

    origin: str
    dialect: str
    which: str
    architecture: str
    matched: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    adapted: tuple[tuple[str, str], ...]
    skipped: tuple[str, ...]
    missing: tuple[str, ...]
    not_finite: tuple[tuple[str, int], ...] = ()
    images: str = ""

    def __str__(self) -> str:
        parts = ("matched", "renamed", "adapted", "skipped", "missing")
        counts = ", ".join(f"{len(getattr(self, part))} {part}" for part in parts)
        where = f" under {self.which}" if self.which else ""
        lines = [f"{self.origin}: names of {self.dialect}{where}; {counts}; {self.architecture}"]
        if self.not_finite:
            names = tuple(f"{name} ({count:,})" for name, count in self.not_finite)
            named = listed(names, _SHOWN)
            lines.append(f"  numbers that are NaN or infinite in {named}: whatever is computed with them is too")
        lines += [f"  adapted {name}: {how}" for name, how in self.adapted]
        for part, left in (("skipped", self.skipped), ("missing", self.missing)):
            lines += [f"  {part} {listed(left, _SHOWN)}"] if left else []
        lines += [f"  its images are {self.images}"] if self.images else []
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
    which: str | None = None,
    reset_head: bool = False,
    adapt_input: bool = False,
) -> LoadReport:
    """Load weights of this or another project into ``model``, in place; the names tell which project's they are.

    ``source`` is a file (of safetensors, torch, numpy or Keras, whatever its suffix), a checkpoint folder, a state
    dict, or what a checkpoint holds around one. Names and shapes are checked before any tensor is read, and a refusal
    leaves the network as it was. Of a checkpoint that holds several networks ``which`` names one: the keys that lead to
    it, ``"ema"`` or ``"raw"``.

    Names and shapes do not say what a network computes. What the checkpoint or a ``config.json`` beside it says of its
    architecture is believed, and a network that contradicts it is refused; where nothing says it, the report does.

    ``reset_head`` leaves out a head that is missing, of another number of classes or of another kind, such as a
    projection head: the network keeps its own.
    ``adapt_input`` fits the first convolution to another number of channels (``adapt_channels``). The counters
    ``num_batches_tracked`` may be missing, or floating-point.

    Raises ``CheckpointError`` for what is damaged, wants to run code, or does not fit, with what would make it fit.

    >>> print(load_weights(create_model("resnet50"), "resnet50-0676ba61.pth"))
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ConfigError(
            "the network is on the meta device and has no memory to load into; build it with device='cpu'"
        )
    opened = open_source(source)
    state = choose_state(opened, which)
    try:
        dialect = fitting_dialect(model, state.dialect)
        architecture = judge(state, model, dialect)
        theirs = their_names(model, dialect)
        heads = head_names(model, dialect)
        images = image_notes_of(model, dialect)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{opened.origin}: {error}") from error
    plan = _make_plan(model, state, theirs, heads, reset_head=reset_head, adapt_input=adapt_input)
    if plan.faults:
        raise CheckpointError(
            f"{opened.origin} (names of {dialect}) does not fit this network: {'; '.join(plan.faults[:_SHOWN])}"
            + (f"; and {len(plan.faults) - _SHOWN} more" if len(plan.faults) > _SHOWN else "")
        )
    not_finite = _copy(model, state.entries, plan, theirs)
    return LoadReport(
        origin=opened.origin,
        dialect=dialect,
        which=printable(state.label),
        architecture=architecture,
        matched=tuple(own for own, name in plan.loaded.items() if own == name and own not in plan.adapted),
        renamed=tuple((name, own) for own, name in plan.loaded.items() if own != name and own not in plan.adapted),
        adapted=tuple(plan.adapted.items()),
        skipped=(*plan.skipped, *map(printable, state.outside)),
        missing=tuple(plan.missing),
        not_finite=not_finite,
        images=images,
    )


def export_weights(model: nn.Module, dialect: str = OURS) -> dict[str, Tensor]:
    """The network's state dict under another project's names and shapes, which that project loads strictly.

    Keras's are the arrays of its layers by ``layer/part``. Raises ``ConfigError`` where that project has no such
    network.
    """
    names = their_names(model, dialect)
    tensors = model.state_dict()
    return {theirs.name: theirs.from_ours(tensors[own].detach().cpu()).contiguous() for own, theirs in names.items()}


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """One network in a file of weights: whose names, every shape, and the classes of the head (0 where it has none).

    ``label`` and ``average`` are the keys that lead to it, and whether it is a moving average; ``stated`` is the
    architecture that the file says. ``parameters`` counts no statistics of norms. ``outside`` are names beside it, and
    ``not_finite`` the tensors with numbers that are NaN or infinite.
    """

    label: str
    average: bool
    stated: str
    dialect: str
    shapes: dict[str, tuple[int, ...]]
    parameters: int
    classes: int
    outside: tuple[str, ...]
    not_finite: tuple[str, ...]


def inspect_weights(source: str | Path | Mapping[str, Tensor], which: str | None = None) -> list[Inspection]:
    """Every network that ``source`` holds, or the one that ``which`` names.

    Raises ``CheckpointError`` as ``load_weights`` does.
    """
    opened = open_source(source)
    states = list(find_states(opened)) if which is None else []
    return [_inspect(state) for state in states or [choose_state(opened, which)]]


def _inspect(state: StateDict) -> Inspection:
    shapes = {name: entry.shape for name, entry in state.entries.items()}
    heads = [name for name, shape in shapes.items() if name in _HEADS and len(shape) > 1]
    # Keras's matrices have a row for each input.
    rows = -1 if state.dialect == "keras" else 0
    return Inspection(
        label=state.label,
        average=state.average,
        stated=state.stated,
        dialect=state.dialect,
        shapes=shapes,
        parameters=sum(prod(shape) for name, shape in shapes.items() if not name.endswith(_BUFFERS)),
        classes=shapes[heads[-1]][rows] if heads else 0,
        outside=tuple(state.outside),
        not_finite=tuple(name for name, entry in state.entries.items() if _count_not_finite(entry.read())),
    )


def _make_plan(
    model: nn.Module,
    state: StateDict,
    theirs: dict[str, TheirTensor],
    heads: tuple[str, str],
    *,
    reset_head: bool,
    adapt_input: bool,
) -> _Plan:
    plan = _Plan(loaded={}, adapted={}, skipped=[], missing=[], faults=[])
    entries = state.entries
    first = _first_convolution(model)
    ours = model.state_dict()
    own_heads = [own for own in ours if own.startswith(f"{HEAD}.")]
    plan.missing.extend(own for own in ours if own not in theirs)
    new_head = reset_head and any(
        theirs[own].name not in entries or entries[theirs[own].name].shape != theirs[own].shape for own in own_heads
    )
    for own, (name, shape, axes) in theirs.items():
        entry = entries.get(name)
        if own in own_heads and new_head:
            plan.missing.append(own)
        elif entry is None:
            _note_absent(plan, own, name, own in own_heads, state.outside.get(name, ""))
        elif own.endswith(_COUNTERS) and prod(entry.shape) == 1:
            # Averages of weights average the counters too, which makes them floating-point.
            plan.loaded[own] = name
        elif entry.floating != ours[own].is_floating_point():
            plan.faults.append(f"{name!r} is not of the same kind of number as {own!r}")
        elif entry.shape == shape:
            plan.loaded[own] = name
        elif own == first and _differs_in_input(entry.shape, shape, channels := 2 if axes else 1):
            _note_input(plan, own, name, entry.shape[channels], shape[channels], adapt_input)
        else:
            remedy = "; pass reset_head=True (--reset-head) to start a new head" if own in own_heads else ""
            plan.faults.append(f"{name!r} has shape {entry.shape}, the network has {shape}{remedy}")
    _note_rest(plan, entries, {tensor.name for tensor in theirs.values()}, heads, reset_head, new_head)
    return plan


def _note_absent(plan: _Plan, own: str, name: str, head: bool, instead: str) -> None:
    if own.endswith(_COUNTERS):
        plan.missing.append(own)
    elif instead:
        plan.faults.append(f"{name!r} is a {instead}, not a dense tensor")
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
    how = "summed" if after == 1 else f"tiled, times {before}/{after}" + (", evened out" if after % before else "")
    plan.adapted[own] = f"{before} input channels to {after}: {how}"


def _note_rest(
    plan: _Plan, entries: dict[str, Entry], known: set[str], heads: tuple[str, str], reset_head: bool, new_head: bool
) -> None:
    # A head of several layers, as MoCo's and SimCLR's, has names of that kind too; SwAV's has names of its own.
    inside_head = tuple(name.removesuffix(end) for name in heads for end in ("weight", "kernel") if name.endswith(end))
    parts = {_part(name) for name in known}
    for name, entry in entries.items():
        in_head = name in heads or name.startswith(inside_head) or _part(name) not in parts
        if in_head and (new_head or (reset_head and name not in known)):
            plan.skipped.append(name)
        elif name not in known:
            remedy = "; pass reset_head=True (--reset-head) to leave the head out" if in_head else ""
            plan.faults.append(f"{name!r} of shape {entry.shape} has no place in the network{remedy}")


def _part(name: str) -> str:
    """The part of the network that a name is of, without numbers: all of ``layer1`` … ``layer9`` are of one."""
    return re.sub(r"\d+", "", re.split(r"[./]", name, maxsplit=1)[0])


def _copy(
    model: nn.Module, entries: dict[str, Entry], plan: _Plan, theirs: dict[str, TheirTensor]
) -> tuple[tuple[str, int], ...]:
    """Copies what the plan says; returns the names of tensors with numbers that are not finite, and how many."""
    ours = model.state_dict()
    # All are read before the first is written, so that a disk that fails leaves the network as it was.
    values = {}
    for own, name in plan.loaded.items():
        value = theirs[own].to_ours(entries[name].read())
        if own in plan.adapted:
            value = adapt_channels(value, ours[own].shape[1])
        values[own] = value.reshape(ours[own].shape)
    counts = tuple((own, count) for own, value in values.items() if (count := _count_not_finite(value)))
    with torch.no_grad():
        for own, value in values.items():
            ours[own].copy_(value.round() if own.endswith(_COUNTERS) and value.is_floating_point() else value)
    return counts


def _count_not_finite(value: Tensor) -> int:
    if not value.is_floating_point():
        return 0
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        # A view that repeats its numbers, of which a file can say that they are a trillion: each is counted once.
        value = value[tuple(slice(None) if step else slice(1) for step in value.stride())]
    # Eight bits have no test of their own.
    return int((~(value if value.element_size() > 1 else value.float()).isfinite()).sum())


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weight ``(O, I, h, w)`` as ``(O, C, h, w)``, which gives equal channels the same map as before.

    That is, Σ_c W'[:, c] = Σ_i W[:, i], for every I and C = ``channels``. For C = 1 it is the sum over I. Else W is
    tiled, cut to C channels and multiplied by I/C, as ``timm.models.adapt_input_conv`` does from three channels; where
    I does not divide C, what is then missing from the sum is spread evenly over the C channels.
    """
    before = weight.shape[1]
    weight = weight.float()
    total = weight.sum(dim=1, keepdim=True)
    if channels == 1:
        return total
    copies = -(-channels // before)
    tiled = weight.repeat(1, copies, 1, 1)[:, :channels] * (before / channels)
    return tiled if channels % before == 0 else tiled + (total - tiled.sum(dim=1, keepdim=True)) / channels


def _first_convolution(model: nn.Module) -> str:
    names = (f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    return next(names, "")


def _differs_in_input(given: tuple[int, ...], wanted: tuple[int, ...], channels: int) -> bool:
    """Whether two shapes of a convolution differ in their input channels alone, which are axis ``channels``."""
    if len(given) != 4 or len(wanted) != 4 or given[channels] < 1:
        return False
    return given[:channels] + given[channels + 1 :] == wanted[:channels] + wanted[channels + 1 :]
