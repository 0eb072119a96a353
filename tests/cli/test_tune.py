"""``--tune`` begins the process again with other variables, and changes no bit of what it trains."""

import json
import os
import subprocess
import sys

import pytest

from resnetlab.cli import tune
from resnetlab.cli.tune import BOUND, TUNED, begin_tuned, find_tcmalloc, tuning
from tests.conftest import ROOT

LIBRARY = "libtcmalloc_minimal.so.4"
linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are tuned on Linux")


def test_what_a_user_has_set_stays():
    assert tuning({}, LIBRARY, {2, 0}) == {"LD_PRELOAD": LIBRARY, TUNED: "0,2"} | BOUND
    assert tuning({}, None, {0, 1}) == {TUNED: "0,1"} | BOUND
    assert tuning({"LD_PRELOAD": "libother.so", "KMP_AFFINITY": "compact"}, LIBRARY, {0, 1}) == {
        "LD_PRELOAD": f"{LIBRARY} libother.so",
        TUNED: "",
    }
    assert tuning({"LD_PRELOAD": "libjemalloc.so", "OMP_PROC_BIND": "false"}, LIBRARY, {0, 1}) == {}


@pytest.mark.parametrize("environment", [{"OMP_NUM_THREADS": "1"}, {"LOCAL_WORLD_SIZE": "2"}])
def test_one_thread_and_several_ranks_are_not_bound(environment):
    assert tuning(environment, LIBRARY, {0, 1}) == {"LD_PRELOAD": LIBRARY, TUNED: ""}
    assert tuning(environment, None, {0, 1}) == {}
    assert tuning({}, None, {0}) == {}


def test_only_a_training_that_asks_for_it_begins_again(monkeypatch):
    begun = []
    monkeypatch.setattr(tune.os, "execve", lambda *place: begun.append(place))
    monkeypatch.setattr(tune.sys, "platform", "linux")
    monkeypatch.delenv(TUNED, raising=False)
    for words in (["train"], ["study", "--tune"], ["list", "train", "--tune"]):
        begin_tuned(words)
    assert not begun
    monkeypatch.setattr(tune, "tuning", lambda *_: {TUNED: ""})
    begin_tuned(["train", "--data", "digits", "--tune"])
    ((program, words, environment),) = begun
    assert (program, words[1:]) == (sys.executable, sys.orig_argv[1:])
    monkeypatch.setattr(tune.os, "environ", environment)
    begin_tuned(["train", "--tune"])
    assert len(begun) == 1


def train(out, *words):
    """A run of two steps in two threads, as a command; its notes and the SHA-256 of its weights."""
    short = ("--model", "cifar_resnet8", "--max-steps", "2", "--device", "cpu", "--json", "--out", out)
    environment = {name: value for name, value in os.environ.items() if name not in (TUNED, *tune.BINDING)}
    environment |= {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "resnetlab", "train", *map(str, (*short, *words))],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    record = json.loads((out / "record.json").read_text())
    losses = [(epoch["running_loss"], epoch["test"] or epoch["validation"]) for epoch in record["history"]]
    weights = (out / "last" / "model.safetensors").read_bytes()
    return [str(line) for line in lines], weights, losses, record["environment"]


@linux
def test_a_tuned_run_has_the_same_bits_and_says_what_was_tuned(tmp_path):
    notes, *tuned = train(tmp_path / "tuned", "--tune")
    plain_notes, *plain = train(tmp_path / "plain")
    assert tuned == plain
    (said,) = [note for note in notes if "tune: " in note]
    assert ("tcmalloc allocates" if find_tcmalloc() else "would help") in said
    assert "threads stay on their cores" in said
    assert not any("tune: " in note for note in plain_notes)


SCRIPT = """
import json, os, sys
from resnetlab.cli import tune
cores = tune.os.environ.get(tune.TUNED, "").count(",") + 1
tune.begin_tuned(["train", "--tune"])
import torch
bound = len(os.sched_getaffinity(0))
tune.free_main_thread()
torch.relu(torch.randn(10**7))
each = sorted(len(os.sched_getaffinity(int(one))) for one in os.listdir("/proc/self/task"))
left = [name for name in tune.BOUND if name in os.environ]
print(json.dumps([bound, len(os.sched_getaffinity(0)), each, left, cores]))
"""


@linux
@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 if sys.platform == "linux" else True, reason="one core binds nothing"
)
def test_only_the_threads_of_openmp_are_bound_and_not_what_starts_later():
    environment = {name: value for name, value in os.environ.items() if name not in (TUNED, *tune.BINDING)}
    environment |= {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    bound, main, each, left, cores = json.loads(done.stdout)
    assert (main, left) == (cores, [])
    # Before it was freed the main thread had a core of its own, as the other thread still has.
    assert bound == each[0] < cores
