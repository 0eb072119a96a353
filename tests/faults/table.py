"""docs/faults.json, and the table that is made from it."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.faults import processes
from tests.faults.damage import damage
from tests.faults.images import fuzz, trees
from tests.faults.inputs import inputs
from tests.faults.kills import kill
from tests.faults.numbers import numbers
from tests.faults.operations import operations
from tests.faults.processes import Pool
from tests.faults.ranks import rank
from tests.faults.resume import resume, worse
from tests.faults.signals import signals
from tests.faults.storage import storage
from tests.faults.workers import worker

RECORD = ROOT / "docs" / "faults.json"


@dataclass(frozen=True)
class Fault:
    """A row: the function, its full count (None is all there are), and in words what is done, what must hold, and what
    the control leaves out."""

    function: Callable[..., dict[str, Any]]
    count: int | None
    fault: str
    holds: str
    control: str


def _images(count: int, seed: int, pool: Pool) -> dict[str, Any]:
    return _counted(fuzz, "files", count, seed, pool)


def _trees(count: int, seed: int, pool: Pool) -> dict[str, Any]:
    return _counted(trees, "folders", count, seed, pool)


def _quietly(function: Callable[[int, int], dict[str, Any]], count: int, seed: int) -> dict[str, Any]:
    # libtiff tells of damage on its own.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return function(count, seed)


def _counted(
    function: Callable[[int, int], dict[str, Any]], key: str, count: int, seed: int, pool: Pool
) -> dict[str, Any]:
    """The counts of twenty children, each with a seed of its own, in the form of the other faults."""
    share = -(-count // 20)
    jobs = [
        (processes.call, _quietly, function, min(share, count - first), 1000 * seed + number)
        for number, first in enumerate(range(0, count, share))
    ]
    found = pool.map(lambda call, *arguments: call(*arguments), jobs)
    crashes = [crash for counts in found for crash in counts["crashes"]]
    hung = sum(counts["hung"] for counts in found)
    return {"n": count, "held": count - hung - len(crashes), "hung": hung, "crashes": crashes} | {
        name: sum(counts[name] for counts in found) for name in ("read", "refused", "images", "bad") if name in found[0]
    }


FAULTS = {
    "kill": Fault(
        kill, 200, "kill -9 at a random moment, then resumed", "the bits of the undisturbed run", "torch.save in place"
    ),
    "operations": Fault(
        operations,
        None,
        "kill -9 and a crash at every operation on files of a save",
        "last/ and best/ whole, old or new",
        "files written in place",
    ),
    "resume": Fault(
        resume,
        190,
        "stopped or killed within an epoch, under 19 settings",
        "the bits of the undisturbed run",
        "the optimizer's or the raw weights left out",
    ),
    "worse": Fault(worse, 50, "worse epochs after a resume", "best/ keeps the best epoch", "the newest is the best"),
    "damage": Fault(
        damage,
        4000,
        "a flipped bit or a truncation in a checkpoint",
        "detected; a resumed run uses the version before, and a note says so",
        "read without sums",
    ),
    "signals": Fault(
        signals,
        60,
        "SIGTERM or Ctrl-C at any moment",
        "ends within 5 s with 143 or 130, leaves no process, resumes to the same bits",
        "kill -9",
    ),
    "storage": Fault(
        storage,
        42,
        "full or read-only disk, folder taken, settings or threads changed",
        "refused with 5, 5, 2, 2, or a note; the checkpoint stays",
        "files written in place",
    ),
    "numbers": Fault(
        numbers,
        100,
        "NaN or infinity in data, loss, gradient, weight; an exploding loss",
        "stops and names where; checkpoint, network and statistics stay finite",
        "no checks",
    ),
    "images": Fault(_images, 10000, "a damaged image file", "read or refused, never a crash or a hang", ""),
    "trees": Fault(_trees, 500, "an odd folder of images", "every image has its class, every bad file is told", ""),
    "inputs": Fault(
        inputs,
        10000,
        "a recipe, array, weights or record that is damaged, swollen or out of place",
        "read or refused, within 1 GiB and 60 s of the processor",
        "the libraries alone",
    ),
    "worker": Fault(
        worker,
        20,
        "a process that decodes images is killed",
        "one clear error; resumes to the same bits",
        "not resumed",
    ),
    "rank": Fault(
        rank,
        3,
        "one of two ranks is killed under torchrun",
        "starts again by itself to the same bits",
        "torchrun without restarts",
    ),
}


def read_results(path: Path = RECORD) -> dict[str, Any]:
    """What was counted so far."""
    return json.loads(path.read_text()) if path.is_file() else {"environment": {}, "faults": {}}


def table(results: dict[str, Any]) -> str:
    """The counts as a table in Markdown, a row for each fault that was run."""
    rows = ["| fault | what must hold | held | control: so many were lost |", "|---|---|---|---|"]
    for name, fault in FAULTS.items():
        if name in results["faults"]:
            counts = results["faults"][name]
            control = f"{fault.control}: {counts['control_lost']} of {counts['control_n']}" if fault.control else ""
            rows.append(f"| {fault.fault} | {fault.holds} | {counts['held']} of {counts['n']} | {control} |")
    return "\n".join(rows) + "\n"
