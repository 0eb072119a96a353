"""Settings that are edited in an unfinished run, and starts that fail."""

import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.core.files import read_json
from resnetlab.train import folder
from resnetlab.train.recipe import read_recipe
from resnetlab.train.run import run_recipe
from tests.faults import processes
from tests.faults.processes import Pool
from tests.faults.runs import SMALL, equals, kept, train
from tests.faults.storage import begin

EDITS: dict[str, dict[str, Any]] = {
    "recipe.yaml": {
        "training.epochs": 6,
        "training.lr": 0.01,
        "training.schedule": "constant",
        "training.momentum": 0.5,
        "training.augment.flip": True,
        "seed": 3,
        "split_seed": 4,
        "options.activation": "tanh",
        "shortcut": "B",
        "validation": False,
    },
    "data.json": {"sha256": "0" * 64, "train": 3},
    "classes.json": {"": ["x", "y"]},
}
"""Files of a run, and settings that are changed in them."""
CASES = [(file, name) for file, names in EDITS.items() for name in names]


def edited(count: int, seed: int, pool: Pool | None = None) -> dict[str, int]:
    """``count`` runs that were stopped, of which a setting, the note of the data or the classes are edited.

    Each resume must be refused with the name of what differs and leave the run as it was; with the edit undone it must
    end in the bits of the undisturbed run, and with ``accept_changes`` the record must say what changed. Control:
    without the check the run goes on as if nothing had happened.
    """
    pool = pool or Pool()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        processes.run(train, place / "undisturbed")
        expected = kept(place / "undisturbed")
        jobs = [(place / str(n), *CASES[n % len(CASES)], f"{seed}/{n}", expected) for n in range(count)]
        held = pool.map(_edited, jobs)
        controls = [(place / f"c{n}", CASES[n % len(CASES)], f"{seed}/c{n}") for n in range(max(4, count // 5))]
        lost = pool.map(_passes, controls)
    return {"n": count, "held": sum(held), "control_n": len(controls), "control_lost": sum(lost)}


def _edit(out: Path, file: str, name: str) -> bytes:
    """Change the file; what it was before."""
    path, value = out / file, EDITS[file][name]
    before = path.read_bytes()
    plain = yaml.safe_load(before)
    inner = plain
    *parts, last = name.split(".")
    for part in parts:
        inner = inner[part]
    if last:
        inner[last] = value
    else:
        plain = value
    path.write_text(yaml.safe_dump(plain))
    return before


def _edited(out: Path, file: str, name: str, draw: str, expected: dict[str, Any]) -> bool:
    processes.run(begin, out, random.Random(draw).randint(12, 20))
    before = kept(out)
    whole = _edit(out, file, name)
    message = processes.call(resumed, out, False)
    told = name in message if file == "recipe.yaml" else file in message
    if not (told and kept(out) == before):
        return False
    if random.Random(draw).random() < 0.5:
        (out / file).write_bytes(whole)
        processes.run(train, out)
        return equals(out, expected)
    # A net of another form cannot go on; all else can, and says so.
    message = processes.call(resumed, out, True)
    if message:
        return "holds another network" in message or "of another length" in message or "no optimizer" in message
    changes = read_json(out / "record.json")["changes"]
    return file != "recipe.yaml" or any(name in line for line in changes)


def resumed(out: Path, accept: bool) -> str:
    """Resume with the recipe in the folder; the message where that is refused."""
    try:
        run_recipe(read_recipe(out / "recipe.yaml"), out, resume=True, page=False, accept_changes=accept)
    except Exception as error:
        return str(error) or repr(error)
    return ""


def unchecked(out: Path) -> str:
    """The control: nobody looks at what the run began with."""
    folder.begun_settings = lambda _: {}
    folder.edited_files = lambda *_: []
    return resumed(out, False)


def _passes(out: Path, case: tuple[str, str], draw: str) -> bool:
    processes.run(begin, out, random.Random(draw).randint(12, 20))
    _edit(out, *case)
    return processes.call(unchecked, out) == ""


FAULTS: dict[str, Callable[[Path], Any]] = {
    "weights": lambda out: replace(SMALL, weights=str(out.with_suffix(".safetensors"))),
    "freeze": lambda _: replace(SMALL, training=replace(SMALL.training, freeze="stages.9")),
    "data": lambda out: replace(SMALL, data=f"npz:{out}.npz"),
    "model": lambda _: replace(SMALL, model="cifar_resnet9"),
    "memory in the first step": lambda _: SMALL,
    "a library in the first step": lambda _: SMALL,
}


def failed(count: int, seed: int, pool: Pool | None = None) -> dict[str, int]:
    """``count`` starts that fail: weights, parts, data or a network that are not there, no memory in the first step.

    The folder must be as it was before, and the corrected command train in it. Control: what was written stays and
    claims the folder.
    """
    del seed
    pool = pool or Pool()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        kinds = [list(FAULTS)[n % len(FAULTS)] for n in range(count)]
        held = pool.map(processes.call, [(starts_again, place / str(n), kind, True) for n, kind in enumerate(kinds)])
        firsts = [kind for kind in FAULTS if "first step" in kind] * max(1, count // 6)
        started = [(starts_again, place / f"c{n}", kind, False) for n, kind in enumerate(firsts)]
        lost = [not again for again in pool.map(processes.call, started)]
    return {"n": count, "held": sum(held), "control_n": len(lost), "control_lost": sum(lost)}


def starts_again(out: Path, kind: str, protected: bool) -> bool:
    """Whether the folder can be used after a start that failed."""
    from resnetlab.train.loop import Trainer

    out.with_suffix(".safetensors").write_bytes(b"no weights")
    step = Trainer.take_step
    if not protected:
        folder.Claim.undo = lambda _: None  # type: ignore[method-assign]
        folder.is_begun = lambda out: (out / folder.RECIPE).is_file()

    def fail(*_: Any) -> None:
        raise ImportError("x") if "library" in kind else MemoryError

    if "first step" in kind:
        Trainer.take_step = fail  # type: ignore[method-assign,assignment]
    try:
        run_recipe(FAULTS[kind](out), out, page=False)
    except Exception:
        if protected and out.exists():
            return False
    else:
        return False
    Trainer.take_step = step  # type: ignore[method-assign]
    try:
        return run_recipe(replace(SMALL, seed=7), out, page=False).status == "finished"
    except (ConfigError, DataError):
        return False
