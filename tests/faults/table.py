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
from tests.faults.edits import edited, failed
from tests.faults.images import fuzz, trees
from tests.faults.inputs import inputs
from tests.faults.kills import kill
from tests.faults.memory import memory
from tests.faults.numbers import numbers
from tests.faults.operations import operations
from tests.faults.power import power
from tests.faults.processes import Pool
from tests.faults.ranks import rank
from tests.faults.resume import resume, worse
from tests.faults.serving import bodies, drain, slow
from tests.faults.signals import signals
from tests.faults.storage import storage
from tests.faults.workers import worker

RECORD = ROOT / "docs" / "faults.json"


@dataclass(frozen=True)
class Fault:
    """A row: the function, its full count (None is all there are), and in words what is done, what must hold, and what
    the control leaves out; of the control's cases ``share`` must be lost at least."""

    function: Callable[..., dict[str, Any]]
    count: int | None
    fault: str
    holds: str
    control: str
    share: float = 0.0

    def control_holds(self, counts: dict[str, Any]) -> bool:
        """Whether the control lost its share: a fault that loses little without protection proves little with it."""
        return not self.control or counts["control_lost"] >= max(1, self.share * counts["control_n"])


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
        kill,
        200,
        "kill -9 at a random moment, then resumed",
        "the bits of the undisturbed run",
        "torch.save in place",
        0.05,
    ),
    "operations": Fault(
        operations,
        None,
        "kill -9 and a crash at every operation on files of a save",
        "last/ and best/ whole, old or new",
        "files written in place",
        0.1,
    ),
    "power": Fault(
        power,
        4000,
        "a power cut at any operation of a save; what was not flushed is lost in part, in any order",
        "last/ and best/ whole, what was saved is there, no manifest vouches in vain",
        "files written in place",
        0.2,
    ),
    "resume": Fault(
        resume,
        200,
        "stopped or killed within an epoch, under 20 settings",
        "the bits of the undisturbed run",
        "the optimizer's or the raw weights left out",
        0.9,
    ),
    "worse": Fault(
        worse, 50, "worse epochs after a resume", "best/ keeps the best epoch", "the newest is the best", 0.9
    ),
    "damage": Fault(
        damage,
        4000,
        "a flipped bit or a truncation in a checkpoint",
        "detected; a resumed run uses the version before, and a note says so",
        "read without sums",
        0.3,
    ),
    "signals": Fault(
        signals,
        60,
        "SIGTERM, Ctrl-C, SIGHUP or SIGQUIT at any moment",
        "ends within 5 s with 143, 130, 129, 131, leaves no process, resumes to the same bits",
        "kill -9",
        0.9,
    ),
    "memory": Fault(
        memory,
        40,
        "no more address space, at any point of a run",
        "0, 5 with one message, or a library's own abort (counted); resumes to the same bits",
        "faults of the system not told",
        0.9,
    ),
    "edited": Fault(
        edited,
        39,
        "recipe, note of the data or classes edited in an unfinished run",
        "refused with what differs, or accepted and recorded",
        "not compared",
        0.7,
    ),
    "failed": Fault(
        failed,
        36,
        "a start that fails: weights, data, memory, a library",
        "the folder is free, the corrected command trains in it",
        "what was written stays",
        0.9,
    ),
    "storage": Fault(
        storage,
        42,
        "full or read-only disk, folder taken, settings or threads changed",
        "refused with 5, 5, 2, 2, the checkpoint as it was; other threads: a note, other bits",
        "files written in place",
        0.6,
    ),
    "numbers": Fault(
        numbers,
        100,
        "NaN or infinity in data, loss, gradient, weight; an exploding loss",
        "stops and names where; checkpoint, network and statistics stay finite",
        "no checks",
        0.7,
    ),
    "images": Fault(_images, 10000, "a damaged image file", "read or refused, never a crash or a hang", ""),
    "trees": Fault(_trees, 500, "an odd folder of images", "every image has its class, every bad file is told", ""),
    "inputs": Fault(
        inputs,
        10000,
        "a recipe, array, weights or record that is damaged, swollen or out of place",
        "read or refused, within 1 GiB and 60 s of the processor",
        "the libraries alone",
        0.5,
    ),
    "worker": Fault(
        worker,
        20,
        "a process that decodes images is killed",
        "one clear error; resumes to the same bits",
        "not resumed",
        0.9,
    ),
    "rank": Fault(
        rank,
        3,
        "one of two ranks is killed under torchrun",
        "starts again by itself to the same bits",
        "torchrun without restarts",
        0.9,
    ),
    "slow": Fault(
        slow,
        100,
        "clients of a server that send a head or a body at a byte a second",
        "cut off within 11 s",
        "uvicorn as it is",
        0.9,
    ),
    "drain": Fault(
        drain,
        20,
        "SIGTERM while 32 clients ask a server without pause",
        "all that was sent before it is answered; code 0",
        "SIGKILL",
        0.9,
    ),
    "bodies": Fault(
        bodies,
        2000,
        "a damaged image or request sent to a server",
        "an answer, never of 500 or above",
        "what is in them not checked",
        0.5,
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
            lost = f"{counts.get('control_lost')} of {counts.get('control_n')}, at least {fault.share:.0%} must be"
            control = f"{fault.control}: {lost}" if fault.control else ""
            rows.append(f"| {fault.fault} | {fault.holds} | {counts['held']} of {counts['n']} | {control} |")
    return "\n".join(rows) + "\n"
