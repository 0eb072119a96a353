"""``resnetlab plan``: what a training step will take, and with ``--measure`` what one really took beside it."""

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from resnetlab.cli.tables import print_columns, show
from resnetlab.core.errors import ConfigError, ResNetLabError
from resnetlab.train.config import Optimizer

if TYPE_CHECKING:
    from resnetlab.models.config import NetConfig
    from resnetlab.models.memory import MemoryPlan

STATUS = Path("/proc/self/status")
HEAPS: dict[str, dict[str, str]] = {
    "freed memory given back": {"MALLOC_MMAP_THRESHOLD_": str(2**16)},
    "the usual heap": {},
}
"""What is measured: how it is called, and its environment. The first is what a prediction can be compared with.

There glibc has pages of its own for every tensor from 64 KiB on, and gives them back when it is freed. Otherwise freed
tensors leave gaps in the heap, which can cost more than what is in use (249 MiB for 89: cifar_resnet110,
32 images, segments of 6).
"""

HINT = (
    "on a CPU the heap of glibc keeps gaps between tensors, which can cost more than what is in use; with tcmalloc "
    "(LD_PRELOAD=libtcmalloc_minimal.so.4) a process takes about what is predicted, and trains faster"
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Predict memory and multiply-adds of a training step, before anything is allocated."""

    name: tyro.conf.Positional[str]
    """Network, such as: cifar_resnet110."""
    batch_size: int = 128
    """Images in the step."""
    accumulate: int = 1
    """Micro-batches in the step."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """fp32, or mixed precision."""
    ema: bool = False
    """Keep an exponential moving average of the network."""
    checkpoint_every: int | None = None
    """Blocks in a segment of activation checkpointing; none keeps all activations."""
    optimizer: Optimizer = "sgd"
    """What is trained with; all but adamw with momentum."""
    image_size: int | None = None
    """Side of the image in pixels; the family's own by default."""
    measure: bool = False
    """Do the step for real, in processes of their own on the CPU, and show their peaks (Linux)."""

    @property
    def traced(self) -> int:
        """Images on which a run of these steps measures its gradients."""
        from resnetlab.train.gradients import traced_of

        return traced_of(self.batch_size // self.accumulate, self.precision)

    def predict(self) -> "MemoryPlan":
        """What the step is predicted to take."""
        from resnetlab.models.memory import predict_memory

        return predict_memory(
            named_config(self.name, self.image_size),
            self.batch_size,
            checkpointing=self.checkpoint_every,
            optimizer=self.optimizer,
            accumulate=self.accumulate,
            precision=self.precision,
            ema=self.ema,
            traced=self.traced,
        )

    def __call__(self) -> None:
        print_columns(prediction_rows(self, self.predict()))
        show("", HINT)
        if self.measure:
            show("", "measured peak of a training process on the CPU, less what it held before it built the network:")
            print_columns([(label, mib(measure_apart(self, heap))) for label, heap in HEAPS.items()])


def prediction_rows(asked: Plan, predicted: "MemoryPlan") -> list[tuple[str, str]]:
    """What is printed of a plan, a line each."""
    return [
        (asked.name, f"one step of {asked.batch_size} images, {asked.precision}"),
        ("parameters", mib(predicted.parameters)),
        ("buffers", mib(predicted.buffers)),
        ("gradients", mib(predicted.gradients)),
        ("optimizer state", mib(predicted.optimizer_state)),
        ("moving average", mib(predicted.average)),
        ("saved activations", mib(predicted.saved_activations)),
        ("recomputed at once", mib(predicted.recomputed)),
        ("a step at its peak", mib(predicted.step)),
        ("the trace at its peak", mib(predicted.trace)),
        ("total, at most", mib(predicted.total)),
        ("multiply-adds", f"{predicted.multiply_adds:,}"),
    ]


def mib(count: int) -> str:
    """Bytes as MiB, as wide as all others."""
    return f"{count / 2**20:10,.2f} MiB"


def measure_apart(asked: Plan, settings: dict[str, str]) -> int:
    """``measure_step`` in a fresh process, whose memory holds nothing of this one, with these in its environment.

    Raises ``ResNetLabError`` where it does not end well, as where memory is out.
    """
    code = f"from resnetlab.cli.memory import Plan, measure_step; print(measure_step({asked!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | settings, check=False
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"ended by signal {-done.returncode}"]
        raise ResNetLabError(
            f"the measured step failed ({reason[0]}); where memory is short, "
            "try a smaller --batch-size, or --checkpoint-every"
        )
    return int(done.stdout)


def measure_step(asked: Plan) -> int:
    """Peak bytes of this process over two training steps and a trace from building the network on, less what it held
    before.

    Two, because the first makes the optimizer's state only when its activations are gone. A tiny network goes before
    them: what torch itself loads then, some 150 MiB, is no cost of the step.
    """
    take_steps(replace(asked, name="cifar_resnet8", image_size=8, batch_size=2 * asked.accumulate))
    before = own_memory("VmRSS")
    take_steps(asked)
    return own_memory("VmHWM") - before


def named_config(name: str, image_size: int | None) -> "NetConfig":
    """The configuration of that name, at its own image size or another."""
    from resnetlab.models.zoo import model_config

    return model_config(name) if image_size is None else model_config(name, image_size=image_size)


def take_steps(asked: Plan) -> None:
    """Build the network and do two training steps on black images, each as a run does it, with a trace between them."""
    import torch
    from torch.nn import functional as F

    from resnetlab.models.init import build
    from resnetlab.models.recompute import recompute_blocks
    from resnetlab.train.config import TrainConfig
    from resnetlab.train.gradients import block_gradients
    from resnetlab.train.optim import Ema, make_optimizer
    from resnetlab.train.prepare import autocast

    config = named_config(asked.name, asked.image_size)
    net = build(config, seed=0)
    if asked.checkpoint_every is not None:
        recompute_blocks(net, asked.checkpoint_every)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    optimizer = make_optimizer(net.train(), TrainConfig(optimizer=asked.optimizer, momentum=0.9))
    ema = Ema(net, 0.999) if asked.ema else None
    part = asked.batch_size // asked.accumulate
    images = torch.zeros(part, config.in_chans, config.image_size, config.image_size)
    images, labels = images.contiguous(memory_format=torch.channels_last), torch.zeros(part, dtype=torch.int64)
    for step in range(2):
        if step:
            block_gradients(net, images[: asked.traced], labels[: asked.traced])
        for _ in range(asked.accumulate):
            with autocast(asked.precision, images.device):
                loss = F.cross_entropy(net(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            del loss
        optimizer.step()
        optimizer.zero_grad()
        if ema is not None:
            ema.update(step)


def own_memory(entry: str) -> int:
    """Bytes that this process holds in memory: ``"VmRSS"`` now, ``"VmHWM"`` at its peak.

    Not ``getrusage``: its ``ru_maxrss`` starts with the peak of the process that started this one.

    Raises ``ConfigError`` where the system does not tell.
    """
    try:
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(lines[entry].split()[0]) * 1024
    except (OSError, KeyError) as error:
        raise ConfigError(f"the measure reads {STATUS}, which this system lacks ({error}); leave it out") from error
