"""What is chosen by trying it on this machine: the epochs that fit into a time, and a learning rate."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from time import perf_counter

import torch

from resnetlab.core.errors import ConfigError
from resnetlab.data.dataset import ImageData
from resnetlab.train.config import TrainConfig
from resnetlab.train.distributed import started_by_torchrun
from resnetlab.train.loop import Trainer
from resnetlab.train.lr_finder import find_lr
from resnetlab.train.prepare import make_loader, pick_device, training_mode
from resnetlab.train.recipe import Recipe, recipe_data, recipe_network

SHARE = 0.8
"""Share of the time that is planned with; the rest is for pages, checkpoints and a machine that slows down."""
EVALUATION = 1 / 3
"""An image's evaluation over its training step, which goes back through the network too."""
ENOUGH, MOST = 8, 100
"""Epochs: with fewer a smaller side is tried, and no more are chosen."""
SMALLEST_SIDE = 32
WARM, TIMED = 2, 4
"""Steps before those that are timed, and these."""

Progress = Callable[[int, int], None] | None


def fit_into(recipe: Recipe, seconds: float, *, smaller: bool, on_progress: Progress = None) -> tuple[Recipe, str]:
    """The recipe with as many epochs as fit into the time, from reading the images to the page, and a line on it.

    Some steps are timed. With ``smaller`` the images' side is cut by a quarter, to 32 pixels at least, as long as fewer
    than ``ENOUGH`` epochs fit.
    """
    check_alone("--time")
    began = perf_counter()
    while True:
        reading = perf_counter()
        data = recipe_data(recipe, on_progress)
        reading = perf_counter() - reading
        step = step_seconds(recipe, data)
        loader = make_loader(data, recipe.training, torch.device("cpu"), recipe.seed)
        image = step / loader.batch_size * EVALUATION
        held = len(data.validation) if data.validation is not None else 0
        epoch = loader.steps * step + held * image
        once = (len(data.train) + len(data.reported)) * image + reading
        fitting = int((SHARE * seconds - (perf_counter() - began) - once) / epoch)
        side = data.image_size * 3 // 4
        if fitting >= ENOUGH or not smaller or side < SMALLEST_SIDE:
            break
        recipe = replace(recipe, decode=replace(recipe.decode, image_size=side))
    epochs = max(1, min(MOST, fitting))
    training = replace(recipe.training, epochs=epochs)
    if training.freeze_epochs is not None:
        training = replace(training, freeze_epochs=max(1, min(training.freeze_epochs, epochs // 5)))
    line = f"epochs {epochs} at {data.image_size} pixels, for {seconds:.0f} s: a step takes {step:.3f} s here"
    return replace(recipe, training=training), line + (", so that even one epoch takes longer" if fitting < 1 else "")


def step_seconds(recipe: Recipe, data: ImageData) -> float:
    """Seconds of a training step of the recipe on this machine, the fastest of some."""
    device = pick_device(recipe.training.device)
    config: TrainConfig = replace(recipe.training, ema=0.0)
    net, _ = recipe_network(recipe, data, str(device))
    loader = make_loader(data, config, device, recipe.seed, alone=True)
    trainer = Trainer(net, loader, config, recipe.seed)
    training_mode(trainer.state.net, config, epoch=config.epochs)
    found = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for number in range(WARM + TIMED):
            epoch, step = divmod(number, loader.steps)
            if step == 0:
                batches = loader.shuffled(recipe.seed, epoch + 1)
            began = perf_counter()
            trainer.take_step(batches, step, number)
            if device.type == "cuda":
                torch.cuda.synchronize()
            found.append(perf_counter() - began)
    return min(found[WARM:])


def find_rate(recipe: Recipe, on_progress: Progress = None) -> tuple[Recipe, str]:
    """The recipe with the learning rate that a range test suggests, the lower of its two, and a line on it.

    The head's rate, where it has one, stays in the same ratio. Where the loss never fell the rate stays as it is.
    """
    check_alone("--lr auto")
    data = recipe_data(recipe, on_progress)
    net, _ = recipe_network(recipe, data)
    curve = find_lr(deepcopy(net), data, recipe.training, seed=recipe.seed)
    old = recipe.training
    if curve.steepest is None or curve.minimum is None:
        return recipe, f"lr {old.lr:g} as without --lr auto: in the range test the loss never fell"
    rate = float(f"{min(curve.steepest, curve.minimum / 10):.2g}")
    head = old.head_lr and float(f"{old.head_lr * rate / old.lr:.2g}")
    line = (
        f"lr {rate:g}, by a range test of {len(curve.rates)} steps: the loss falls fastest at {curve.steepest:.2g}, "
        f"and a tenth of the rate of its lowest is {curve.minimum / 10:.2g}"
    )
    return replace(recipe, training=replace(old, lr=rate, head_lr=head)), line


def check_alone(flag: str) -> None:
    """Refuse what is measured where several processes would measure different things."""
    if started_by_torchrun():
        raise ConfigError(f"{flag} tries steps in one process; run it without torchrun, and give torchrun its recipe")
