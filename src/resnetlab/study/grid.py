"""A paired depth study: plain and residual nets, depth by depth and seed by seed, with nothing else between them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

from resnetlab.core.config import command_of
from resnetlab.core.errors import ConfigError, require, require_choice
from resnetlab.core.serialize import as_plain
from resnetlab.data.config import AugmentConfig, DecodeConfig
from resnetlab.records import gradients as flow
from resnetlab.records.run import RunRecord
from resnetlab.records.study import StudyRecord, StudyRun
from resnetlab.study import degradation
from resnetlab.study.plan import PlannedRun
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe, ShortcutChoice

Kind = Literal["plain", "residual"]
Family = Literal["cifar", "imagenet", "mlp"]

NAMES = {"cifar": "cifar_{kind}{depth}", "imagenet": "{kind}{depth}", "mlp": "mlp_{kind}{depth}"}
WORDS = {"plain": "plain", "residual": "resnet"}
RESIDUAL_ONLY = ("zero_init_residual", "scale_residual")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The grid of a study: kinds × depths × seeds, all else equal.

    Raises ``ConfigError`` for values that make no study.
    """

    family: Family = "cifar"
    """Networks to compare: cifar_*, imagenet (plain18 … resnet34) or mlp_*."""
    depths: tuple[int, ...] = (8, 20, 56)
    """Weight layers."""
    kinds: tuple[Kind, ...] = ("plain", "residual")
    """Nets without and with shortcuts."""
    seeds: int = 3
    """Runs of each net, with the seeds 0, 1, …; plain and residual are paired by seed."""
    shortcut: Literal["default", "A", "B", "C"] = "default"
    """Shortcut option of the residual nets; default is the paper's for the family."""
    options: dict[str, str] = field(default_factory=dict)
    """Further settings of all networks, such as norm layer (zero_init_residual and scale_residual: residual only)."""
    data: str = "digits"
    """digits, a folder of images, or another source, as for train."""
    split_seed: int = 0
    """Decides the split of data that comes without one."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """How encoded images become arrays."""
    training: TrainConfig = field(default_factory=lambda: TrainConfig(augment=AugmentConfig(crop_padding=0)))
    """How each net is trained."""

    def __post_init__(self) -> None:
        require_choice("family", self.family, NAMES)
        for name, values in (("depths", self.depths), ("kinds", self.kinds)):
            require(0 < len(values) == len(set(values)), name, values, "one or more, all different")
        for kind in self.kinds:
            require_choice("kind", kind, WORDS)
        require(1 <= self.seeds <= 1000, "seeds", self.seeds, "from 1 to 1000")
        for key in self.options.keys() & {"depth", "depths"}:
            raise ConfigError(f"option {key} would undo the depths of the study; name depths with --depths")
        require_choice("shortcut", self.shortcut, ("default", "A", "B", "C"))


def plan_grid(config: StudyConfig) -> list[PlannedRun]:
    """The grid, seed by seed, so that an interrupted study has every net of its first seeds."""
    return [
        PlannedRun(values={"kind": kind, "depth": str(depth)}, seed=seed, recipe=recipe, label=recipe.model)
        for seed, depth, kind in product(range(config.seeds), sorted(config.depths), config.kinds)
        for recipe in [make_recipe(config, kind, depth, seed)]
    ]


def make_recipe(config: StudyConfig, kind: Kind, depth: int, seed: int) -> Recipe:
    """The recipe of one place in the grid; a plain one differs from its residual twin in the name alone.

    The one exception are settings that start a branch near zero: a plain net has no identity to start from.
    """
    shortcut: ShortcutChoice = config.shortcut if kind == "residual" else "default"
    options = {key: text for key, text in config.options.items() if kind == "residual" or key not in RESIDUAL_ONLY}
    return Recipe(
        model=NAMES[config.family].format(kind=WORDS[kind], depth=depth),
        shortcut=shortcut,
        options=options,
        data=config.data,
        split_seed=config.split_seed,
        decode=config.decode,
        seed=seed,
        training=config.training,
    )


def grid_command(config: StudyConfig) -> str:
    """The command that makes this study, with every setting that is not the default."""
    return command_of("study", "STUDY", as_plain(config), as_plain(StudyConfig()))


def grid_record(config: StudyConfig, planned: int, ended: Sequence[tuple[PlannedRun, RunRecord]]) -> StudyRecord:
    """The study from the records of its runs: statistics over seeds, and verdicts on degradation and gradients."""
    runs = [
        StudyRun(
            kind=run.values["kind"],
            depth=int(run.values["depth"]),
            seed=run.seed,
            flow_start=flow.judge(record.gradients_start),
            flow_end=flow.judge(record.gradients_end),
            record=record,
        )
        for run, record in ended
    ]
    return StudyRecord(
        settings=as_plain(config),
        command=grid_command(config),
        rules={"degradation": degradation.RULE, "gradients": flow.RULE},
        planned=planned,
        runs=runs,
        cells=degradation.make_cells(runs),
        pairs=degradation.make_pairs(runs),
        verdicts=degradation.make_verdicts(runs),
    )
