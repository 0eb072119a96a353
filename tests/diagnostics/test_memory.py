"""What the whole command takes of the system's memory for a very deep net, in a process of its own."""

import os
import subprocess
import sys

import numpy as np
import pytest

from resnetlab.core.serialize import read_record
from resnetlab.records.diagnosis import Diagnosis
from tests.conftest import ROOT

DIAGNOSE = """
import sys
from resnetlab.cli import main
from resnetlab.cli.memory import own_memory
code = main(["diagnose", *sys.argv[1:]])
print(own_memory("VmHWM"))
sys.exit(code)
"""


def peak(*words: object) -> int:
    """Bytes at the peak of ``resnetlab diagnose`` with these words: measuring, drawing and writing the page."""
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", DIAGNOSE, *map(str, words)]
    return int(subprocess.run(command, env=settings, capture_output=True, text=True, check=True).stdout.split()[-1])


@pytest.fixture
def noise(tmp_path):
    """Images of CIFAR's form; what is in them makes no difference to memory."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), np.arange(40) % 10
    np.savez(tmp_path / "noise.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return f"npz:{tmp_path / 'noise.npz'}"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
@pytest.mark.parametrize("what", [("gradients", "residuals"), ("all",)], ids=" ".join)
def test_diagnosis_of_1202_layers_takes_less_than_4_gigabytes(tmp_path, noise, what):
    """Of images of CIFAR's size the passes alone, a batch of 32; the whole grid of signals on digits, for time."""
    words = ["--data", noise] if what != ("all",) else []
    used = peak("cifar_resnet1202", "--what", *what, *words, "--out", tmp_path / "found")
    found = read_record(Diagnosis, tmp_path / "found" / "diagnosis.json")
    assert (len(found.net.blocks), found.batch) == (600, 32)
    assert used < 4e9
