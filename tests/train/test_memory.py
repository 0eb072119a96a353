"""What a whole run takes of the system's memory with checkpointed blocks, in a process of its own."""

import os
import subprocess
import sys

import pytest

from resnetlab.models.memory import predict_memory
from resnetlab.models.zoo import model_config
from tests.conftest import ROOT

STEP = (
    "from resnetlab.cli.memory import Plan, measure_step; "
    "print(measure_step(Plan(name={name!r}, batch_size={batch}, checkpoint_every={every})))"
)
RUN = """
import sys, torch
from pathlib import Path
from resnetlab.train import run
from resnetlab.cli.memory import own_memory
from resnetlab.data.dataset import ImageData, Split
from resnetlab.train.recipe import Recipe
from resnetlab.train.config import TrainConfig
torch.set_num_threads(1)
split = Split(images=torch.randint(0, 256, (128, 3, 32, 32), dtype=torch.uint8), labels=torch.arange(128) % 10)
run.recipe_data = lambda *_: ImageData(source="noise", train=split, test=split, classes=tuple("0123456789"))
training = TrainConfig(max_steps=1, batch_size=128, checkpoint_blocks="auto", evaluate_train="end")
run.run_recipe(Recipe(model="cifar_resnet1202", training=training), Path(sys.argv[1]))
print(own_memory("VmHWM"))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def printed(code: str, *words: object) -> int:
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code, *map(str, words)]
    return int(subprocess.run(command, env=settings, capture_output=True, text=True, check=True).stdout)


def test_segments_hold_about_what_was_predicted_on_the_usual_heap():
    """Where nothing is given back between the segments it is four times as much."""
    predicted = predict_memory(model_config("cifar_resnet110"), 32, checkpointing=3).total
    assert printed(STEP.format(name="cifar_resnet110", batch=32, every=3)) < 1.6 * predicted


@pytest.mark.slow
def test_run_of_1202_layers_with_128_images_takes_less_than_4_gigabytes(tmp_path):
    assert printed(RUN, tmp_path / "run") < 4e9
