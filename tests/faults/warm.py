"""One small run, trained when the fork server imports this, so that no child pays for what torch, cattrs and sklearn do
once in a process. Nothing of the run stays, and none of its threads."""

import gc
import tempfile
import threading
from pathlib import Path

import torch

from tests.faults.runs import train

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as name:
    train(Path(name) / "run")
assert threading.active_count() == 1
# A child that collects cycles would copy every page of what it shares.
gc.collect()
gc.freeze()
