"""What a checkpoint costs: ours, durable and summed, beside ``torch.save`` and an fsync of the same tensors.

python benchmarks/checkpoint.py --out checkpoint.json

``resnet50`` with the momentum of SGD, at the end of an epoch that is the best yet, so that ``best/`` and ``last/`` are
both new. "wait" is what the training thread waits for; "all" is until everything is on the disk. The two take turns in
one process; the time of the clock depends on the disk, that of the processor does not.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import torch
from loop import noise, spread

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.models.zoo import create_model
from resnetlab.records.run import EpochRecord, Metrics
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import Trainer
from resnetlab.train.prepare import make_loader

CPU = torch.device("cpu")


def trained(model: str, out: Path) -> Trainer:
    """A run of ``model`` after one step of an epoch that is its best."""
    net = create_model(model, num_classes=1000)
    config = TrainConfig(batch_size=2, save_every_seconds=0)
    trainer = Trainer(net, make_loader(noise(2, 32), config, CPU), config, seed=0, out=out)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.state.optimizer.step()
    metrics = Metrics(loss=1, error=1, n=1)
    record = EpochRecord(epoch=1, learning_rate=0.1, running_loss=1, train=None, test=metrics, seconds=1)
    trainer.state.history.append(record)
    return trainer


def usual(trainer: Trainer, path: Path) -> Callable[[], None]:
    """``torch.save`` of the same tensors, flushed to the disk."""

    def save() -> None:
        checkpoint = trainer.state.to_checkpoint({}, trainer.checkpoints.settings)
        with open(path, "wb") as stream:
            torch.save({"model": checkpoint.model, "training": checkpoint.training}, stream)
            stream.flush()
            os.fsync(stream.fileno())

    return save


def seconds(function: Callable[[], None]) -> dict[str, float]:
    """By the clock, and of the processor."""
    clock, processor = perf_counter(), process_time()
    function()
    return {"clock": perf_counter() - clock, "processor": process_time() - processor}


def main() -> None:
    """Measure, print and write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--model", default="resnet50", help="the network that is saved")
    words.add_argument("--turns", type=int, default=15, help="how often each is timed")
    words.add_argument("--folder", type=Path, help="where to write: a folder of the disk that is meant")
    words.add_argument("--out", type=Path, help="JSON file of the figures")
    asked = words.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        trainer = trained(asked.model, Path(name))
        checkpoints, other = trainer.checkpoints, usual(trainer, Path(name) / "usual.pt")
        for _ in range(asked.turns + 1):
            usual_seconds = seconds(other)
            wait, rest = seconds(checkpoints.end_epoch), seconds(checkpoints.wait)
            rows.append(
                {"torch.save": usual_seconds, "wait": wait, "all": {key: wait[key] + rest[key] for key in wait}}
            )
        size = sum(path.stat().st_size for path in (Path(name) / "last").iterdir())
    rows = rows[1:]
    over = {
        f"{ours}, {time}": spread([row[ours][time] / row["torch.save"][time] for row in rows])
        for ours in ("wait", "all")
        for time in ("clock", "processor")
    }
    for name, values in over.items():
        sys.stdout.write(f"{name:20}{values['median']:8.2f}  {values['quartile_1']:.2f} – {values['quartile_3']:.2f}\n")
    if asked.out:
        found = {
            "n": len(rows),
            "model": asked.model,
            "bytes": size,
            "torch_save_seconds": spread([row["torch.save"]["clock"] for row in rows]),
            "over_torch_save": over,
            "environment": describe_environment("cpu", 1),
        }
        write_json(asked.out, found)


if __name__ == "__main__":
    main()
