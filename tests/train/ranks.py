"""What two ranks do and write down: started by torchrun, read by ``test_distributed.py``, which does the same alone."""

import io
import json
import os
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed as dist
from torch import nn

from resnetlab.cli import main
from resnetlab.core.errors import ConfigError, DataError, DivergedError
from resnetlab.core.serialize import as_plain
from resnetlab.data import ingest, opening, stamps
from resnetlab.data.config import AugmentConfig, DecodeConfig
from resnetlab.data.loader import Loader
from resnetlab.models.zoo import create_model
from resnetlab.records.run import EpochRecord
from resnetlab.train import callbacks, distributed
from resnetlab.train.callbacks import NoCallback, StepStats
from resnetlab.train.config import TrainConfig
from resnetlab.train.distributed import process_group, world
from resnetlab.train.evaluate import evaluate_batches
from resnetlab.train.loop import fit
from resnetlab.train.prepare import wrap_ddp
from resnetlab.train.recipe import Recipe, recipe_data
from resnetlab.train.run import run_recipe
from resnetlab.train.sync_bn import SyncBatchNorm
from tests.conftest import make_data
from tests.data.test_folder import classes_of
from tests.train.runs import StopAfter

PLAIN = AugmentConfig(crop_padding=0)
BASE = TrainConfig(epochs=2, batch_size=16, schedule="cosine", augment=PLAIN)
MIXED = AugmentConfig(crop_padding=1, flip=True, erasing=0.5, mixup=0.4, cutmix=0.4)


class Double(nn.Module):
    """A small network that computes in float64."""

    def __init__(self, norm: str = "batch") -> None:
        super().__init__()
        self.net = create_model("cifar_resnet8", in_chans=1, num_classes=3, norm=norm).double()

    def forward(self, x):
        return self.net(x.double())


def single() -> nn.Module:
    return create_model("cifar_resnet8", in_chans=1, num_classes=3)


CASES = {
    "sync_bn": (Double, replace(BASE, sync_bn=True)),
    "sync_bn, float32": (single, replace(BASE, sync_bn=True, epochs=1)),
    "group norm": (lambda: Double("group"), BASE),
    "group norm, accumulate": (lambda: Double("group"), replace(BASE, accumulate=2)),
    "sync_bn, accumulate": (Double, replace(BASE, sync_bn=True, accumulate=2)),
    "mixup": (Double, replace(BASE, sync_bn=True, augment=MIXED, label_smoothing=0.1)),
    "balanced": (Double, replace(BASE, sync_bn=True, sampler="balanced")),
    "ema": (Double, replace(BASE, sync_bn=True, ema=0.9)),
    "segments": (single, replace(BASE, sync_bn=True, epochs=1, checkpoint_blocks=2)),
    "bn of each rank": (Double, BASE),
}
RESUMED = replace(BASE, ema=0.9, save_every=4)
RUN = Recipe(model="cifar_resnet8", training=replace(BASE, max_steps=3, sync_bn=True))


def timeless(history: list[EpochRecord]) -> list[object]:
    return [as_plain(replace(record, seconds=0.0, images_per_second=None)) for record in history]


def note(out: Path, name: str, value: object) -> None:
    (out / f"{name}.{world().rank}.json").write_text(json.dumps(value))


def keep(out: Path, name: str, net: nn.Module) -> None:
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, out / f"{name}.{world().rank}.st")


def train(out: Path) -> None:
    for name, (make, config) in CASES.items():
        net = make()
        note(out, name, timeless(fit(net, make_data(), config, seed=0)))
        keep(out, name, net)


def evaluate(out: Path) -> None:
    """On sets whose last batch is short, and whose batches the ranks cannot share evenly."""
    found = []
    for samples in (1, 7, 8, 40, 41):
        data = make_data(test=samples)
        loader = Loader(data.test, data.normalisation, 8, rank=world().rank, ranks=world().size)
        found.append(as_plain(evaluate_batches(single(), loader)))
    note(out, "evaluate", found)


def resume(out: Path) -> None:
    """BN of each rank's own, so that whatever is not shared differs."""
    whole = single()
    note(out, "whole", timeless(fit(whole, make_data(), RESUMED, seed=0, out=out / f"whole of {world().rank}")))
    keep(out, "whole", whole)
    with suppress(KeyboardInterrupt):
        fit(single(), make_data(), RESUMED, seed=0, out=out / f"cut of {world().rank}", callback=StopAfter(10))
    resumed = single()
    note(out, "resumed", timeless(fit(resumed, make_data(), RESUMED, seed=0, out=out / f"cut of {world().rank}")))
    keep(out, "resumed", resumed)


def refuse(out: Path) -> None:
    messages = []
    for batch, parts in ((15, 1), (2, 1), (12, 4)):
        try:
            fit(single(), make_data(), replace(BASE, batch_size=batch, accumulate=parts), seed=0)
        except ConfigError as error:
            messages.append(str(error))
    note(out, "refuse", messages)


def diverge(out: Path) -> None:
    """Weights of one rank alone become NaN before step 4 of 24: the gradients that are averaged carry it to both."""
    config, net = replace(BASE, batch_size=4), single()
    told: list[int] = []

    class Break(NoCallback):
        def on_step(self, step: int, steps: int, stats: StepStats | None) -> None:
            told.append(step)
            if step == 3 and not world().leads:
                net.head.weight.data.fill_(float("nan"))

    before, callbacks.EVERY = callbacks.EVERY, 0
    try:
        fit(net, make_data(), config, seed=0, callback=Break())
    except DivergedError as error:
        note(out, "diverge", [str(error), told[-1]])
    callbacks.EVERY = before


def buffers(out: Path) -> None:
    """Whether the buffers are sent before each step: of a net whose only ones are those of BN, and of another."""
    other = single()
    other.stem.register_buffer("scale", torch.ones(1))
    note(out, "buffers", [wrap_ddp(net, TrainConfig()).broadcast_buffers for net in (single(), Double(), other)])


def batch_norm_input() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, weights of the outputs in the loss, and scale and bias; of 8 images the first rank takes 3."""
    draw = torch.Generator().manual_seed(5)
    x, w = (torch.randn(8, 4, 3, 3, generator=draw, dtype=torch.float64) for _ in range(2))
    return x + 1e3, w, torch.randn(2, 4, generator=draw, dtype=torch.float64)


def normalise(norm: nn.BatchNorm2d, share: slice) -> dict[str, torch.Tensor]:
    x, w, (scale, bias) = batch_norm_input()
    with torch.no_grad():
        norm.weight.copy_(scale)
        norm.bias.copy_(bias)
    x = x[share].requires_grad_()
    y = norm(x)
    (y * w[share]).sum().backward()
    found = {"y": y.detach(), "x.grad": x.grad, "weight.grad": norm.weight.grad, "bias.grad": norm.bias.grad}
    return found | dict(norm.named_buffers())


def norms(out: Path) -> None:
    found = normalise(SyncBatchNorm(4).double(), slice(0, 3) if world().leads else slice(3, 8))
    for name in ("weight.grad", "bias.grad"):
        dist.all_reduce(found[name])
    save_file(found, out / f"norm.{world().rank}.st")


def run(out: Path) -> None:
    record = run_recipe(RUN, out / "run")
    again = run_recipe(RUN, out / "run", resume=True)
    note(out, "run", [timeless(record.history), timeless(again.history)])
    note(out, "trace", as_plain(record.gradient_trace))


def read(out: Path) -> None:
    """A folder of images, on the leading rank by a full check that takes too long, on the other one not; and one that
    cannot be read."""
    place = out / "images"
    if world().leads:
        classes_of(place, "a", "b", size=(80, 90))
        time.sleep(2 * stamps.TICK / 1e9)
    dist.barrier()
    opened: list[int] = []
    original, opening.read_cell = opening.read_cell, lambda cell: opened.append(1) or original(cell)
    ingest.read_cell = opening.read_cell
    if world().leads:
        ingest.MEASURED = ingest.ALONE = ingest.PATIENCE = 0
        distributed.SILENCE = 0
    recipe = replace(RUN, data=str(place), decode=DecodeConfig(image_size=70))
    data = recipe_data(recipe)
    errors = []
    try:
        recipe_data(replace(recipe, data=str(out / "nowhere")))
    except DataError as error:
        errors.append(str(error))
    note(out, "read", {"data": data.fingerprint, "opened": len(opened), "errors": errors})


def command(out: Path) -> None:
    """``resnetlab train``, which joins the other rank by itself; what it prints."""
    words = ["train", "--model", "cifar_resnet8", "--batch-size", "256", "--epochs", "1", "--device", "cpu", "--out"]
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as said:
        code = main([*words, str(out / "command")])
    (out / f"command.{os.environ['RANK']}.json").write_text(json.dumps([code, printed.getvalue(), said.getvalue()]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    command(folder)
    # In torchrun's store a second group needs another name, as after a restart.
    os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"
    with process_group("cpu"):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = "0"
        for part in (train, evaluate, resume, refuse, diverge, buffers, norms, run, read):
            part(folder)
