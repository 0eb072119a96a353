import subprocess
import sys
import threading
import time

import pytest
from torch import distributed as dist

from resnetlab.core.errors import ResNetLabError
from resnetlab.study.workers import StoreClaims


@pytest.fixture
def store():
    return dist.HashStore()


def test_many_workers_claim_each_run_once(store):
    runs = [f"run {n}" for n in range(200)]
    taken: list[tuple[int, str]] = []

    def work(worker):
        with StoreClaims(store) as claims:
            taken.extend((worker, run) for run in runs if claims.take(run))

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(run for _, run in taken) == sorted(runs)


def test_claim_stays_its_holders(store):
    with StoreClaims(store, patience=0.0) as ours, StoreClaims(store, patience=0.0) as theirs:
        assert ours.take("run")
        assert not theirs.take("run")
        assert ours.take("run")


def test_claim_of_a_process_that_has_ended_is_free_at_once(store):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with StoreClaims(store) as gone, StoreClaims(store) as ours, StoreClaims(store) as theirs:
        home, _, number = gone.token.split("|")
        gone.token = f"{home}|{ended.pid}|{number}"
        assert gone.take("run")
        assert theirs.take("run")
        assert not ours.take("run")


@pytest.mark.parametrize("lives", [True, False])
def test_claim_of_another_machine_is_free_when_its_holder_gives_no_sign_of_life(store, lives):
    far = StoreClaims(store, beat=0.02)
    far.token = "elsewhere:pid:[1]|1|token"
    with StoreClaims(store, patience=0.3) as ours:
        assert far.take("run")
        if lives:
            far.__enter__()
        deadline = time.monotonic() + 1.0
        free = False
        while not free and time.monotonic() < deadline:
            free = ours.take("run")
            time.sleep(0.01)
        assert free == (not lives)
        if lives:
            far.__exit__(None, None, None)


def test_store_that_is_gone_is_said():
    host = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ours = StoreClaims(dist.TCPStore("127.0.0.1", host.port, is_master=False, wait_for_workers=False), beat=0.01)
    with ours as claims:
        assert claims.take("first")
        del host
        with pytest.raises(ResNetLabError, match="claims of the study is gone"):
            claims.take("second")
