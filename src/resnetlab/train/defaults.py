"""The recipe that suits the data: what a command leaves open for encoded images, by rules that can be read.

``choose`` is a function of facts alone; ``look`` finds the facts. Arrays (digits, MNIST, CIFAR) are taken as they are,
but for when the training images are evaluated (``choose_evaluation``), and recipes from a file altogether.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnetlab.core.errors import DataError
from resnetlab.data.config import ARRAYS
from resnetlab.data.counts import count_images
from resnetlab.train.recipe import Recipe, hub_tag, read_recipe, recipe_config

SMALL = 64
"""Up to this side in pixels images are small, and are taken whole."""
CPU_SIDE, CUDA_SIDE = 96, 224
"""The largest sides that are chosen for photographs."""
SEEN, FEWEST, MOST = 20_000, 8, 30
"""Images that a run sees, over all epochs, and the bounds of its epochs."""
FEW = 1000
"""Training images from which on a tenth of them is held out to choose by."""
SCARCE = 300
"""Training images below which a small network is chosen for photographs, where there are no weights to start from."""
STEPS = 32
"""Steps of an epoch that the batch size leaves."""
LARGE = 20_000
"""Training images in arrays above which they are evaluated at the end only: the figure of each epoch is its running
error, and one more pass forward over all of them costs a quarter of the epoch."""
AT_HAND = ("resnet18.tv_in1k", "resnet50.tv2_in1k", "resnet50.tv_in1k")
"""Weights that are looked for in the cache of the Hub, the first one found is taken."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the rules look at: training images, with those that would be held out of them, or the set's own validation
    beside them; the median of their short side in pixels, whether all are grey, the device, and weights to start from:
    given ones, or those in the cache."""

    images: int
    side: int
    grey: bool
    device: str
    own_validation: bool = False
    weights: "Weights | None" = None


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights to start from: what ``--weights`` calls them, and the ``model`` and image ``side`` of their training,
    None where that is not known. ``cached`` ones were not asked for."""

    name: str
    model: str | None
    side: int | None
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One line of the table: ``setting`` becomes ``value`` where ``holds``. ``when`` and ``says`` are these in words.

    ``unless`` are other settings which, if given, leave this one alone.
    """

    setting: str
    says: str
    when: str
    holds: Callable[[Facts, Recipe], bool]
    value: Callable[[Facts, Recipe], Any]
    unless: tuple[str, ...] = ()

    def why(self, value: str) -> str:
        """What is said of the choice: how the value was reached, where it is not the rule's own, and when."""
        return "; ".join(part for part in (self.says, self.when) if part not in (value, "always"))


def _small(facts: Facts, _: Recipe) -> bool:
    return facts.side <= SMALL


def _tuned(facts: Facts, _: Recipe) -> bool:
    return facts.weights is not None


def _always(_: Facts, __: Recipe) -> bool:
    return True


def _imagenet_stem(_: Facts, recipe: Recipe) -> bool:
    from resnetlab.models.resnet import ResNetConfig

    config = recipe_config(recipe)
    return isinstance(config, ResNetConfig) and config.stem == "imagenet"


def _last_stage(recipe: Recipe) -> str:
    from resnetlab.models.init import build

    stages: Any = build(recipe_config(recipe), seed=0, device="meta").stages
    return f"stages.{len(stages) - 1}"


def _batch(facts: Facts, _: Recipe) -> int:
    largest = 64 if facts.device == "cpu" else 256
    return max(16, min(largest, 1 << max(0, (facts.images // STEPS).bit_length() - 1)))


def _scaled(rate: float) -> Callable[[Facts, Recipe], float]:
    return lambda _, recipe: float(f"{rate * recipe.training.batch_size / 64:.2g}")


CROPS = ("crop_padding", "random_resized_crop", "crop_scale")
RULES = (
    Rule(
        setting="weights",
        says="those in the cache of the Hub",
        when=f"they are there, of {', '.join(AT_HAND)}; images above {SMALL} pixels",
        holds=lambda facts, _: facts.weights is not None and facts.weights.cached,
        value=lambda facts, _: facts.weights and facts.weights.name,
    ),
    Rule(
        setting="model",
        says="that of the weights",
        when="weights are given, or in the cache",
        holds=lambda facts, _: facts.weights is not None and facts.weights.model is not None,
        value=lambda facts, _: facts.weights and facts.weights.model,
    ),
    Rule(
        setting="model",
        says="cifar_resnet20",
        when=f"images of at most {SMALL} pixels, whose maps a first layer of stride 1 keeps whole",
        holds=_small,
        value=lambda _, __: "cifar_resnet20",
    ),
    Rule(
        setting="model",
        says="cifar_resnet8",
        when=f"images above {SMALL} pixels, fewer than {SCARCE} to train on: a large network learns them by heart",
        holds=lambda facts, _: facts.images < SCARCE,
        value=lambda _, __: "cifar_resnet8",
    ),
    Rule(
        setting="model",
        says="resnet18",
        when=f"images above {SMALL} pixels",
        holds=_always,
        value=lambda _, __: "resnet18",
    ),
    Rule(
        setting="decode.image_size",
        says="that of the weights' own images",
        when="the weights are those of a run",
        holds=lambda facts, _: facts.weights is not None and facts.weights.side is not None,
        value=lambda facts, _: facts.weights and facts.weights.side,
    ),
    Rule(
        setting="decode.image_size",
        says="the median of the images' short sides, for a VGG 32 at least",
        when=f"it is at most {SMALL} pixels",
        holds=_small,
        value=lambda facts, recipe: max(facts.side, 32 if recipe.model.startswith("vgg") else 1),
    ),
    Rule(
        setting="decode.image_size",
        says=f"the median of the short sides, but at most {CUDA_SIDE}",
        when="on cuda",
        holds=lambda facts, _: facts.device == "cuda",
        value=lambda facts, _: min(facts.side, CUDA_SIDE),
    ),
    Rule(
        setting="decode.image_size",
        says=f"the median of the short sides, but at most {CPU_SIDE}",
        when="on a CPU, where the time grows with the square of the side",
        holds=_always,
        value=lambda facts, _: min(facts.side, CPU_SIDE),
    ),
    Rule(
        setting="validation",
        says="nothing is held out, and the last epoch is kept",
        when=f"fewer than {FEW:,} training images: a tenth of them would choose an epoch by chance",
        holds=lambda facts, _: facts.images < FEW and not facts.own_validation,
        value=lambda _, __: False,
        unless=("early_stop", "best_by", "keep_top"),
    ),
    Rule(
        setting="options.stem",
        says="cifar",
        when=f"images of at most {SMALL} pixels, and a network whose stem would shrink them",
        holds=lambda facts, recipe: _small(facts, recipe) and facts.weights is None and _imagenet_stem(facts, recipe),
        value=lambda _, __: "cifar",
    ),
    Rule(
        setting="training.batch_size",
        says=f"the largest power of two that leaves {STEPS} steps an epoch, from 16 to 64 (256 on cuda)",
        when="always",
        holds=_always,
        value=_batch,
    ),
    Rule(
        setting="training.lr",
        says="0.001; for lars 0.2, for normalised_sgd 0.05",
        when="the optimizer is not sgd",
        holds=lambda _, recipe: recipe.training.optimizer != "sgd",
        value=lambda _, recipe: {"lars": 0.2, "normalised_sgd": 0.05}.get(recipe.training.optimizer, 0.001),
    ),
    Rule(
        setting="training.lr",
        says="0.02 × batch size / 64",
        when="there are weights to start from, or a VGG without BN",
        holds=lambda facts, recipe: (
            _tuned(facts, recipe) or (recipe.model.startswith("vgg") and not recipe.model.endswith("_bn"))
        ),
        value=_scaled(0.02),
    ),
    Rule(
        setting="training.lr",
        says="0.2 × batch size / 64",
        when=f"images of at most {SMALL} pixels, and a network for such, whose name begins with cifar_",
        holds=lambda facts, recipe: _small(facts, recipe) and recipe.model.startswith("cifar_"),
        value=_scaled(0.2),
    ),
    Rule(
        setting="training.lr",
        says="0.08 × batch size / 64",
        when="another network",
        holds=_always,
        value=_scaled(0.08),
    ),
    Rule(
        setting="training.head_lr",
        says="ten times the learning rate",
        when="there are weights to start from: the head is new",
        holds=_tuned,
        value=lambda _, recipe: float(f"{10 * recipe.training.lr:.2g}"),
    ),
    Rule(
        setting="training.epochs",
        says=f"as many as show {SEEN:,} images, from {FEWEST} to {MOST}",
        when="always",
        holds=_always,
        value=lambda facts, _: max(FEWEST, min(MOST, round(SEEN / max(1, facts.images)))),
    ),
    Rule(
        setting="training.freeze",
        says="all but the head",
        when="there are weights to start from",
        holds=_tuned,
        value=lambda _, recipe: _last_stage(recipe),
        unless=("freeze_epochs",),
    ),
    Rule(
        setting="training.freeze_epochs",
        says="a fifth of the epochs",
        when="the rule above froze",
        holds=_tuned,
        value=lambda _, recipe: max(1, recipe.training.epochs // 5),
        unless=("freeze",),
    ),
    Rule(
        setting="training.evaluate_train",
        says="end",
        when="it saves a quarter of the time",
        holds=_always,
        value=lambda _, __: "end",
    ),
    Rule(
        setting="training.augment.flip",
        says="on",
        when="images in colour: digits, letters and scans, which a mirror spoils, are most often grey",
        holds=lambda facts, _: not facts.grey,
        value=lambda _, __: True,
    ),
    Rule(
        setting="training.augment.random_resized_crop",
        says="on",
        when=f"images above {SMALL} pixels",
        holds=lambda facts, recipe: not _small(facts, recipe),
        value=lambda _, __: True,
        unless=CROPS,
    ),
    Rule(
        setting="training.augment.crop_scale",
        says="0.35 to 1.0",
        when="shares of the image, where the rule above crops",
        holds=lambda facts, recipe: not _small(facts, recipe),
        value=lambda _, __: (0.35, 1.0),
        unless=CROPS,
    ),
)
"""The rules, in their order: of those of one setting the first that holds decides, and later ones see what it chose."""


def choose(facts: Facts, recipe: Recipe, given: Collection[str]) -> tuple[Recipe, list[str]]:
    """The recipe with every setting that is not ``given`` as the rules have it, and a line for each that was chosen.

    ``given`` are names of settings, without what they are nested in: ``lr``, ``stem``.
    """
    taken, lines = set(given), []
    for rule in RULES:
        name = rule.setting.rpartition(".")[2]
        if name in taken or set(rule.unless) & set(given) or not rule.holds(facts, recipe):
            continue
        taken.add(name)
        value = rule.value(facts, recipe)
        recipe = with_setting(recipe, rule.setting, value)
        lines.append(f"{name.replace('_', ' ')} {_said(value)} ({rule.why(_said(value))})")
    return recipe, lines


def choose_evaluation(recipe: Recipe, given: Collection[str]) -> tuple[Recipe, list[str]]:
    """For a set of arrays: the recipe with ``evaluate_train`` as suits the number of its images, unless it is given,
    and a line where it is not the fixed default."""
    if "evaluate_train" in given or (images := count_images(recipe.data)) <= LARGE:
        return recipe, []
    line = f"evaluate train end ({images:,} training images in arrays, more than {LARGE:,})"
    return with_setting(recipe, "training.evaluate_train", "end"), [line]


def hint(facts: Facts) -> list[str]:
    """What would help most, where photographs are learnt from nothing."""
    if facts.weights is not None or facts.side <= SMALL:
        return []
    return [
        f"no trained weights are at hand; for few photographs they help most: --weights {AT_HAND[0]} fetches some "
        "(pip install 'resnetlab[hub]'), or name the folder of a run"
    ]


def with_setting(recipe: Recipe, setting: str, value: Any) -> Recipe:
    """The recipe with that setting, named with dots: ``training.lr``."""
    return _replaced(recipe, setting.split("."), value)  # type: ignore[no-any-return]


def _replaced(config: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    if isinstance(config, dict):
        return config | {path[0]: value}
    return replace(config, **{path[0]: _replaced(getattr(config, path[0]), path[1:], value)})


def _said(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(map(str, value))
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def suits(source: str) -> bool:
    """Whether the rules choose for the source: it has encoded images."""
    return source.partition(":")[0] not in ARRAYS


def look(recipe: Recipe, given: Collection[str]) -> Facts:
    """The facts of the recipe's images, of which some are opened, of this machine and of weights that are at hand.

    Raises ``DataError`` for images that cannot be listed, or of which none can be read.
    """
    from numpy import arange

    from resnetlab.data.glance import glance
    from resnetlab.data.sources import encoded_images
    from resnetlab.train.prepare import pick_device

    listed = encoded_images(recipe.data, recipe.split_seed)
    assert listed is not None
    parts = listed.divide(arange(len(listed.labels)))
    seen = glance(listed, parts["train"])
    return Facts(
        images=len(parts["train"]),
        own_validation="validation" in parts,
        side=recipe.decode.image_size or seen.side,
        grey=seen.grey,
        device=pick_device(recipe.training.device).type,
        weights=find_weights(recipe, given, seen.side),
    )


def find_weights(recipe: Recipe, given: Collection[str], side: int) -> Weights | None:
    """The weights that the recipe names, or for photographs those that the cache of the Hub has; nothing is fetched."""
    if recipe.weights is not None:
        run = Path(recipe.weights)
        try:
            before = read_recipe(run / "recipe.yaml")
        except DataError:
            tag = hub_tag(recipe)
            return Weights(name=recipe.weights, model=tag and tag.partition(".")[0], side=None)
        return Weights(name=recipe.weights, model=before.model, side=before.decode.image_size)
    if "weights" in given or side <= SMALL:
        return None

    from resnetlab.models.pretrained import is_cached

    for tag in AT_HAND:
        model = tag.partition(".")[0]
        if ("model" not in given or recipe.model == model) and is_cached(tag):
            return Weights(name=tag, model=model, side=None, cached=True)
    return None
