"""SIGTERM, Ctrl-C, Ctrl-\\ and a terminal that closes, at whatever moment."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.faults import processes
from tests.faults.processes import Pool
from tests.faults.runs import EPOCHS, WORDS, command, equals, kept, train

PHASES = ("reading data", "first step", "training", "evaluation", "saving", "last save", "record")
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
LIMIT = 5.0
"""Seconds within which a process must have ended."""


def signals(count: int, seed: int, pool: Pool | None = None) -> dict[str, Any]:
    """Half of ``count`` signals meet the real command at moments spread over all of its time, its start included; the
    other half come at a moment of each phase in turn, every fourth of them twice.

    The process must end within 5 s with 143, 130, 129 or 131 (0 where all was done), leave no process behind, and
    be resumable to the bits of the undisturbed run. Control: kill -9 gives neither code.
    """
    pool = pool or Pool()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes.run(train, folder / "undisturbed")
        expected = kept(folder / "undisturbed")
        started = time.perf_counter()
        assert _ended(_command(folder / "timed")) == 0
        seconds = time.perf_counter() - started
        real = count // 2
        jobs = [
            (_at_a_moment, folder / f"r{n}", NUMBERS[n % 4], seconds * _spread(n, real, seed), expected)
            for n in range(real)
        ]
        jobs += [
            (_in_a_phase, folder / f"p{n}", NUMBERS[n % 4], PHASES[n % len(PHASES)], n % 4 == 3, expected)
            for n in range(count - real)
        ]
        cases = pool.map(_call, jobs)
        controls = pool.map(
            _at_a_moment,
            [(folder / f"c{n}", signal.SIGKILL, seconds * 0.5, expected) for n in range(max(1, count // 20))],
        )
    return {
        "n": count,
        "held": sum(all(case[key] for key in ("in_time", "code_right", "alone", "equal")) for case in cases),
        "not_in_time": sum(not case["in_time"] for case in cases),
        "wrong_code": sorted(str(case["code"]) for case in cases if not case["code_right"]),
        "processes_left": sum(not case["alone"] for case in cases),
        "other_bits": sum(not case["equal"] for case in cases),
        "ended_before": sum(case["code"] == 0 for case in cases),
        "control_n": len(controls),
        "control_lost": sum(control["code"] == 128 + signal.SIGKILL for control in controls),
    }


def _spread(number: int, of: int, seed: int) -> float:
    """A moment in the number-th of so many equal parts of the time, as a share of it."""
    return (number + random.Random(f"{seed}/{number}").random()) / of


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _command(out: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "resnetlab", "train", *WORDS, "--out", str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # nohup hands a SIGHUP that is ignored on to its children.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def _ended(process: "subprocess.Popen[bytes]", seconds: float = processes.PATIENCE) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def _at_a_moment(out: Path, number: signal.Signals, after: float, expected: dict[str, Any]) -> dict[str, Any]:
    process = _command(out)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    code = _ended(process, LIMIT)
    return _judge(out, process.pid, number, code, expected)


def _judge(
    out: Path, session: int, number: signal.Signals, code: int | None, expected: dict[str, Any]
) -> dict[str, Any]:
    # A process that dies of a signal before it can note one has the same code in a shell.
    shown = 128 - code if code is not None and code < 0 else code
    alone = not processes.of_session(session)
    processes.run(train, out)
    return {
        "in_time": code is not None,
        "code": shown,
        "code_right": shown in (0, 128 + number) and number in NUMBERS,
        "alone": alone,
        "equal": equals(out, expected),
    }


def _in_a_phase(out: Path, number: signal.Signals, phase: str, twice: bool, expected: dict[str, Any]) -> dict[str, Any]:
    out.parent.mkdir(exist_ok=True)
    mark = out.with_suffix(".mark")
    process = processes.start(signalled, out, int(number), phase, twice, mark, errors=out.with_suffix(".log"))
    begun = time.monotonic()
    while not mark.exists() and not processes.ends_within(process, 0.01):
        assert time.monotonic() - begun < processes.PATIENCE, f"no signal was sent: {phase}"
    in_time = processes.ends_within(process, LIMIT)
    code = processes.finish(process)
    case = _judge(out, process.pid, number, code if in_time else None, expected)
    # Once the last epoch is saved the run goes on to its record. The work after a second signal would take ten seconds.
    allowed = (0, 128 + number) if phase == "last save" and not twice else (128 + number,)
    return case | {"code_right": in_time and code in allowed}


def signalled(out: Path, number: int, phase: str, twice: bool, mark: Path) -> None:
    """The command, with a signal to itself at the first moment of the phase."""
    from resnetlab.train import checkpoint_manager, loop, run

    def send() -> None:
        mark.touch()
        os.kill(os.getpid(), number)
        if twice:
            os.kill(os.getpid(), number)
            time.sleep(2 * LIMIT)

    owners: dict[str, tuple[Any, str, int]] = {
        "reading data": (run, "recipe_data", 1),
        "first step": (loop.Trainer, "take_step", 1),
        "training": (loop.Trainer, "take_step", 15),
        "evaluation": (loop, "evaluate_batches", 2),
        "saving": (checkpoint_manager, "replace_folder", 3),
        "last save": (checkpoint_manager, "write_metrics", EPOCHS),
        "record": (run, "write_record", 1),
    }
    owner, name, turn = owners[phase]
    function, calls = getattr(owner, name), 0

    def sending(*arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == turn:
            send()
        return function(*arguments, **settings)

    setattr(owner, name, sending)
    command("train", *WORDS, "--out", str(out))
