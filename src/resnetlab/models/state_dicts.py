"""Which networks a checkpoint holds: state dicts within what training scripts save around them, averages among them.

A checkpoint nests its state dicts under keys (``state_dict``, ``model``, ``net``, ``model_ema`` …) and puts words
before every name (``module.``, ``_orig_mod.``, ``encoder_q.`` …). No list of either is kept: a network is where names
begin that one of the known projects has, and what stands before them is taken off.
"""

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from resnetlab.core.errors import CheckpointError
from resnetlab.models.dialects import DIALECTS
from resnetlab.models.key_mapping import find_dialect, find_prefix, normal_name
from resnetlab.models.weight_files import Entry, Opened, as_entry

_DEEPEST = 6
"""Nested containers that are searched; no training script goes deeper, and a pickle can hold itself."""
_AVERAGE = re.compile(r"ema\d*|swa|avg|averaged?|shadow|teacher|target|momentum|k", re.IGNORECASE)
"""Words of a label that say average; k is MoCo's ``encoder_k``."""
_COUNTER_OF_AVERAGES = "n_averaged"
_STATED = ("arch", "architecture", "model_name", "model", "net", "backbone")
_OPTIONS = ("args", "opt", "config", "cfg", "hparams", "hyper_parameters")
_WRAPPED = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")
"""What torch.compile and torch's wrappers of single layers put into the middle of names."""
_TWICE = "{} has two tensors of one name; give the state dict of one network"
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class StateDict:
    """One network of a checkpoint.

    - ``label``: the keys and the prefix that lead to it, joined by dots; ``""`` where there are none.
    - ``dialect``: whose names these are. ``entries``: the tensors by their names behind the prefix.
    - ``outside``: what else stands in the same mapping of the checkpoint, by name, and what kind of thing it is.
    - ``average``: whether it is a moving average by its label or its counter.
    - ``stated``: the architecture that the checkpoint or the ``config.json`` beside it says, or ``""``; ``config`` is
      that file's content.
    """

    label: str
    dialect: str
    entries: dict[str, Entry]
    outside: Mapping[str, str] = field(default_factory=dict)
    average: bool = False
    stated: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        kind = ", an average" if self.average else ""
        return f"{self.label!r} ({len(self.entries)} tensors{kind})"


def choose_state(opened: Opened, which: str | None = None) -> StateDict:
    """The one network of a checkpoint, or of several the one that ``which`` names, or that a run of ours keeps.

    ``which`` is its label, one of the keys of its label, ``"ema"`` for the only average, or ``"raw"`` for the only one
    that is none.

    Raises ``CheckpointError`` where there is none, or where there are several and ``which`` does not decide.
    """
    found = list(find_states(opened))
    if not found:
        raise CheckpointError(_nothing(opened))
    if which is None and opened.kept:
        (state,) = (state for state in found if state.label == opened.kept)
        # Whoever reads the report learns of the other networks too.
        others = {other.label: "network" for other in found if other is not state}
        return replace(state, outside={**state.outside, **others})
    if which is None:
        if len(found) == 1:
            return found[0]
        raise CheckpointError(
            f"{opened.origin} holds {len(found)} networks: {', '.join(map(str, found))}; choose one by which="
            f"{_word(found)!r} (resnetlab weights inspect or convert --which {_word(found)})"
        )
    for fits in (_has_label, _is_kind, _has_key):
        chosen = [state for state in found if fits(state, which)]
        if len(chosen) == 1:
            return chosen[0]
    raise CheckpointError(
        f"{opened.origin}: which={which!r} names {'none' if not chosen else len(chosen)} of its networks: "
        f"{', '.join(map(str, found))}"
    )


def _has_label(state: StateDict, which: str) -> bool:
    return state.label == which


def _is_kind(state: StateDict, which: str) -> bool:
    return which.lower() in ("raw", "ema", "average", "swa") and state.average == (which.lower() != "raw")


def _has_key(state: StateDict, which: str) -> bool:
    return which in state.label.split(".") or state.label.endswith(f".{which}")


def _word(found: list[StateDict]) -> str:
    """What would choose one of them."""
    if sum(state.average for state in found) == 1:
        return "ema"
    return next(state.label for state in found if state.label)


def find_states(opened: Opened) -> Iterator[StateDict]:
    """Every network of a checkpoint, in its order."""
    # Of timm's config.json; any other may be that of another thing in the same folder.
    architecture = opened.beside.get("architecture")
    stated = architecture if isinstance(architecture, str) else ""
    for path, mapping, said in _walk(opened.content, (), stated, set()):
        tensors = {
            name: entry for name, value in mapping.items() if isinstance(name, str) and (entry := as_entry(value))
        }
        names = {_WRAPPED.sub("", name): entry for name, entry in tensors.items()}
        if len(names) < len(tensors):
            raise CheckpointError(_TWICE.format(opened.origin))
        prefixes = list(dict.fromkeys(prefix for name in names if (prefix := find_prefix(name)) is not None))
        for prefix in prefixes:
            inner = {name for name in names if _owner(name, prefixes) == prefix}
            entries = {normal_name(name.removeprefix(prefix)): names[name] for name in names if name in inner}
            if len(entries) < len(inner):
                raise CheckpointError(_TWICE.format(opened.origin))
            label = ".".join([*path, prefix.rstrip("./")] if prefix else path)
            yield StateDict(
                label=label,
                dialect=find_dialect(entries),
                entries=entries,
                outside={
                    str(name): _kind(value)
                    for name, value in mapping.items()
                    if name not in tensors or _WRAPPED.sub("", name) not in inner
                },
                average=_COUNTER_OF_AVERAGES in mapping or any(map(_AVERAGE.fullmatch, re.split(r"[._]", label))),
                stated=said,
                config=opened.beside,
            )


def _kind(value: Any) -> str:
    return "tensor" if as_entry(value) else type(value).__name__


def _owner(name: str, prefixes: list[str]) -> str | None:
    """The longest of the prefixes that the name has."""
    return max((prefix for prefix in prefixes if name.startswith(prefix)), key=len, default=None)


def _walk(
    value: Any, path: tuple[str, ...], stated: str, seen: set[int]
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any], str]]:
    """Every mapping within ``value``, with the keys that lead to it and the architecture that is stated above it."""
    if id(value) in seen or len(path) > _DEEPEST:
        return
    if isinstance(value, Mapping):
        seen.add(id(value))
        stated = _stated(value) or stated
        yield path, value, stated
        for key, inner in value.items():
            yield from _walk(inner, (*path, str(key)), stated, seen)
    elif isinstance(value, list | tuple):
        seen.add(id(value))
        for number, inner in enumerate(value):
            yield from _walk(inner, (*path, str(number)), stated, seen)


def _stated(value: Mapping[Any, Any]) -> str:
    """The architecture that a mapping names, or the options in it do."""
    options = [value, *(value.get(key) for key in _OPTIONS)]
    for place in options:
        fields = vars(place) if isinstance(place, Namespace) else place
        if isinstance(fields, Mapping):
            for key in _STATED:
                if isinstance(fields.get(key), str) and fields[key]:
                    return str(fields[key])
    return ""


def _nothing(opened: Opened) -> str:
    """What was found where no network is."""
    names, kinds = [], []
    for _, mapping, _ in _walk(opened.content, (), "", set()):
        for name, value in mapping.items():
            if as_entry(value) is not None:
                names.append(repr(name))
            elif not isinstance(value, Mapping | list | tuple):
                kinds.append(f"{name!r}, a {type(value).__name__}")
    way = "give the state dict of a network (torch.save(net.state_dict(), …))"
    if any(re.search(r"layers/.+/vars/\d+'$", name) for name in names):
        way = "Keras 3 writes no names of layers there: np.savez(FILE, **{w.path: w.numpy() for w in model.weights})"
    if names:
        shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        return (
            f"{opened.origin}: the names of its {len(names)} tensors ({shown}) are those of no known project, whatever "
            f"stands before them; known are {', '.join(DIALECTS)}; {way}"
        )
    inside = f" but {', '.join(kinds[:_SHOWN])}" if kinds else ""
    kind = type(opened.content).__name__
    return f"{opened.origin} holds no tensors by name{inside}: it is a {kind}, not a state dict; {way}"
