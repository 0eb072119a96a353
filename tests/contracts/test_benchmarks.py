"""The benchmark for a GPU runs: in its tiny mode, on a CPU."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.long
def test_gpu_benchmark_runs_every_case_on_a_cpu_in_its_tiny_mode(tmp_path):
    out = tmp_path / "tiny.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "benchmarks/gpu.py", "--tiny", "--out", str(out)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    # Which others take part depends on what is installed; of ours none may fail.
    assert not [name for name in found["failed"] if ": ours" in name]
    ran = [*found["cases"], *found["left_out"]]
    assert {name for name in ran if ": ours" in name} == {
        "cifar_resnet8, batch 8: ours",
        "cifar_resnet8, batch 8: ours, --compile",
        "resnet18, batch 4, held: ours",
        "resnet18, batch 4, held: ours, --compile",
        "resnet18, batch 4, JPEG: ours",
    }
    for case in found["cases"].values():
        assert case["images_per_second"]["median"] > 0
        assert 0 < case["share_of_peak"]["median"] < 2
        assert case["operators_per_step"] > 100
