"""A split that is decoded on demand: the same images by any number of workers, and workers that die."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab.core.errors import DataError
from resnetlab.data.decode import decode
from resnetlab.data.encoded import EncodedSplit
from resnetlab.data.processes import begin_worker
from resnetlab.data.transforms import ResizedCrop
from tests.conftest import ROOT, moments_of
from tests.faults.images import encoded

RNG = np.random.default_rng(0)
FILES = [
    encoded(Image.fromarray(RNG.integers(0, 256, (20 + n, 30, 3), dtype=np.uint8)), ("PNG", "JPEG")[n % 2])
    for n in range(12)
]
PLAN = [torch.tensor(which) for which in ([3, 1, 11], [0], [5, 5, 2, 7], [10, 4])]
PART = [torch.tensor(which) for which in ([3, 1], [0], [2, 2, 0])]
BOXES = torch.from_numpy(RNG.random((12, 4)))
USUAL = (0.08, 1.0)


def split(images=FILES, **settings) -> EncodedSplit:
    given = {
        "labels": torch.arange(len(images)) % 3,
        "side": 16,
        "moments": moments_of(torch.zeros(12, 3, 16, 16)),
        "identity": "0" * 64,
        "encoding": "mixed",
    }
    return EncodedSplit(store=images, **(given | settings))


def test_batches_are_the_decoded_images_in_the_order_of_the_plan():
    for crop in (None, ResizedCrop(uniforms=BOXES, scale=USUAL)):
        for which, images in zip(PLAN, split().batches(PLAN, crop), strict=True):
            expected = [
                decode(FILES[n], 16, None if crop is None else BOXES[n].tolist()).transpose(2, 0, 1) for n in which
            ]
            assert images.dtype == torch.uint8
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert np.array_equal(images.numpy(), np.stack(expected))


def test_crop_scale_decides_the_boxes():
    (small,) = split().batches([torch.tensor([3])], ResizedCrop(uniforms=BOXES, scale=(0.1, 0.2)))
    assert np.array_equal(
        small[0].numpy(), decode(FILES[3], 16, BOXES[3].tolist(), scale=(0.1, 0.2)).transpose(2, 0, 1)
    )
    (usual,) = split().batches([torch.tensor([3])], ResizedCrop(uniforms=BOXES, scale=USUAL))
    assert not torch.equal(small, usual)


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_any_number_of_workers_gives_the_same_and_draws_nothing(workers):
    before = torch.get_rng_state()
    expected = list(split().batches(PLAN, ResizedCrop(uniforms=BOXES, scale=USUAL)))
    found = list(split(workers=workers).batches(PLAN, ResizedCrop(uniforms=BOXES, scale=USUAL)))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert multiprocessing.active_children() == []


def test_processes_stay_for_the_next_pass_of_any_split_of_the_set_and_end_with_the_last():
    whole = split(workers=2)
    train, test = whole.divide(torch.arange(4))
    expected = [list(replace(one, workers=0).batches(PART)) for one in (train, test)]
    started = []
    for one, images in ((train, expected[0]), (test, expected[1]), (test.to(torch.device("cpu")), expected[1])):
        assert all(torch.equal(a, b) for a, b in zip(one.batches(PART), images, strict=True))
        started.append({process.pid for process in multiprocessing.active_children()})
    assert len(started[0]) == 2
    assert started[0] == started[1] == started[2]
    # As the loop does, which takes as many batches as it has steps and leaves the pass at the last one.
    batches = train.batches(PART)
    for _ in PART:
        next(batches)
    batches.close()
    assert {process.pid for process in multiprocessing.active_children()} == started[0]
    del one, train, test, batches
    assert len(multiprocessing.active_children()) == 2
    del whole
    assert multiprocessing.active_children() == []


def test_two_passes_at_a_time_do_not_mix_and_a_single_batch_starts_nothing():
    one = split(workers=2)
    expected = list(replace(one, workers=0).batches(PLAN))
    assert torch.equal(next(one.batches(PLAN[:1])), expected[0])
    assert multiprocessing.active_children() == []
    pairs = list(zip(one.batches(PLAN), one.batches(PLAN[::-1]), strict=True))
    assert all(torch.equal(a, b) for (a, _), b in zip(pairs, expected, strict=True))
    assert all(torch.equal(a, b) for (_, a), b in zip(pairs, expected[::-1], strict=True))
    assert len(multiprocessing.active_children()) == 2
    other = replace(one, store=FILES[::-1])
    assert torch.equal(next(other.batches([torch.tensor([8, 10, 0])])), expected[0])


def test_a_worker_that_was_killed_between_two_passes_is_replaced():
    one = split(workers=2)
    expected = list(one.batches(PLAN))
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(0.2)
    assert all(torch.equal(a, b) for a, b in zip(one.batches(PLAN), expected, strict=True))
    assert len(multiprocessing.active_children()) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_an_empty_plan_has_no_batches(workers):
    assert list(split(workers=workers).batches([])) == []


def test_split_tells_what_it_holds_and_moves():
    here = split()
    assert (len(here), here.shape, here.encoding) == (12, (3, 16, 16), "mixed")
    moved = here.to(torch.device("meta"))
    assert moved.labels.device.type == next(iter(moved.batches(PLAN))).device.type == "meta"
    assert here.labels.device.type == "cpu"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_image_that_broke_since_is_told_by_its_name(tmp_path, workers):
    paths = [tmp_path / f"{n}.png" for n in range(12)]
    for path, content in zip(paths, FILES, strict=True):
        path.write_bytes(content)
    assert len(list(split(paths, workers=workers).batches(PLAN))) == 4
    paths[5].unlink()
    with pytest.raises(DataError, match=r"5\.png cannot be read: No such file") as caught:
        list(split(paths, workers=workers).batches(PLAN))
    assert "Traceback" not in str(caught.value)
    broken = [*FILES[:5], b"", *FILES[6:]]
    with pytest.raises(DataError, match="image 5 cannot be read"):
        list(split(broken, workers=workers).batches(PLAN))
    with pytest.raises(DataError, match="row five cannot be read"):
        list(split(broken, workers=workers, names=["row five"] * 12).batches(PLAN))


def test_abandoned_batches_leave_no_process_and_touch_no_other_batches():
    first, second = (split(workers=2).batches(PLAN * 20) for _ in range(2))
    next(first)
    next(second)
    assert len(multiprocessing.active_children()) == 4
    second.close()
    assert len(multiprocessing.active_children()) == 2
    assert len(list(first)) == 79
    assert multiprocessing.active_children() == []


def test_a_killed_worker_is_one_error_where_a_batch_is_awaited_and_no_process_is_left():
    batches = split(workers=2).batches(PLAN * 50)
    next(batches)
    before = signal.getsignal(signal.SIGCHLD)
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(0.2)
    with pytest.raises(DataError, match=r"was killed.*fewer --workers.*last checkpoint"):
        list(batches)
    assert multiprocessing.active_children() == []
    assert signal.getsignal(signal.SIGCHLD) is before


def test_workers_leave_signals_of_the_group_to_their_parent(monkeypatch):
    """From their first moment on: they are signalled as soon as they are there."""
    fork, signalled = multiprocessing.get_context("fork").Process.start, []

    def start(process):
        fork(process)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(process.pid, number)
        signalled.append(process.pid)

    monkeypatch.setattr("multiprocessing.context.ForkProcess.start", start)
    batches = split(workers=2).batches(PLAN * 50)
    assert len(list(batches)) == 200
    assert len(signalled) == 2


KILLED = """
import multiprocessing, os, sys, time, torch
from tests.data.test_encoded import PLAN, split
batches = split(workers=2).batches(PLAN * 1000)
next(batches)
print(*[process.pid for process in multiprocessing.active_children()], flush=True)
time.sleep(60)
"""


def test_workers_end_with_a_parent_that_was_killed():
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert len(workers) == 2
        assert all(alive(worker) for worker in workers)
        parent.kill()
    assert end(workers)


HALF_READ = """
import torch
from tests.data.test_encoded import PLAN, split
from resnetlab.data.torch_datasets import from_datasets
items = torch.utils.data.TensorDataset(torch.zeros(64, 3, 8, 8, dtype=torch.uint8), torch.arange(64) % 2)
own = from_datasets(torch.utils.data.DataLoader(items, num_workers=2)).train
batches = {given}.batches(PLAN * 1000)
next(batches)
print("read", flush=True)
"""


@pytest.mark.parametrize("given", ["split(workers=2)", "own"])
def test_process_ends_though_a_half_read_pass_is_alive(given):
    """Its workers ignore the SIGTERM by which multiprocessing ends what is left of them."""
    script = HALF_READ.replace("{given}", given)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (found.returncode, found.stdout, found.stderr) == (0, "read\n", "")


@pytest.mark.parametrize(("parent", "code"), [(os.getpid, 0), (lambda: 1, 1)], ids=["there", "gone"])
def test_worker_whose_parent_is_gone_already_does_not_begin(parent, code):
    process = multiprocessing.get_context("fork").Process(target=begin_worker, args=(parent(), 0))
    process.start()
    process.join(30)
    assert process.exitcode == code


ORPHANED = """
import os, time
from resnetlab.data.processes import begin_worker
parent, (begun, tell) = os.getpid(), os.pipe()
worker = os.fork()
if worker == 0:
    begin_worker(parent, 0)
    os.write(tell, b"x")
    time.sleep(600)
os.read(begun, 1)
print(worker, flush=True)
os._exit(0)
"""


def test_worker_ends_when_its_parent_goes_after_it_began():
    """Without torch's own watchdog, which may come to be only when the parent is gone."""
    # The worker holds the pipe open: this returns when it ends, or raises after a minute.
    found = subprocess.run([sys.executable, "-c", ORPHANED], capture_output=True, text=True, timeout=60, check=True)
    assert end([int(found.stdout)])


def end(processes: list[int]) -> bool:
    """Whether all of them end within half a minute."""
    last = time.monotonic() + 30
    while any(alive(process) for process in processes) and time.monotonic() < last:
        time.sleep(0.1)
    return not any(alive(process) for process in processes)


def alive(process: int) -> bool:
    """Whether it runs; a dead one may still be listed where nobody waits for it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_identity_side_and_labels_make_the_fingerprint():
    import hashlib

    def digest(images: EncodedSplit) -> str:
        content = hashlib.sha256()
        images.feed(content)
        return content.hexdigest()

    first = split()
    assert digest(first) == digest(replace(first, workers=3))
    others = [replace(first, identity="1" * 64), replace(first, side=17), replace(first, labels=first.labels.flip(0))]
    assert len({digest(first), *map(digest, others)}) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_image_met_on_the_way_is_replaced_by_the_next_of_its_class_and_named(tmp_path, workers):
    """In every epoch alike, whatever was asked for before."""
    paths = [tmp_path / f"{n}.png" for n in range(12)]
    for path, content in zip(paths, FILES, strict=True):
        path.write_bytes(content)
    crop = ResizedCrop(uniforms=BOXES, scale=USUAL)
    whole = torch.cat(list(split(paths).batches(PLAN, crop)))
    for broken in (5, 8):
        paths[broken].write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"5\.png cannot be read: .*; the next image of its class") as told:
        found = torch.cat(list(split(paths, on_bad="skip", workers=workers).batches(PLAN, crop)))
    assert len({str(one.message) for one in told}) == 1
    order = torch.cat(PLAN)
    assert torch.equal(found[order != 5], whole[order != 5])
    # Of the class of 5 comes 8, which is bad too, and then 11; past the end it would be 2.
    expected = torch.from_numpy(decode(FILES[11], 16, BOXES[11].tolist()).transpose(2, 0, 1).copy())
    assert all(torch.equal(image, expected) for image in found[order == 5])
    with pytest.raises(DataError, match=r"5\.png cannot be read"):
        list(split(paths).batches(PLAN))


def test_class_without_a_readable_image_is_an_error_though_bad_ones_are_skipped():
    files = [b"" if n % 3 == 2 else FILES[n] for n in range(12)]
    with pytest.raises(DataError, match="image 11 cannot be read"):
        list(split(files, on_bad="skip").batches(PLAN))
