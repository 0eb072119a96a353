"""What is asked about a network: which analyses, and by which images each is measured."""

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Literal

from resnetlab.core.errors import require, require_choice
from resnetlab.data.config import DecodeConfig
from resnetlab.records.diagnosis import ANALYSES, Analysis
from resnetlab.train.config import Device
from resnetlab.train.recipe import Recipe, ShortcutChoice

TRAINS: tuple[Analysis, ...] = ("identity",)
"""Analyses that train, and that ``all`` does not stand for."""
MOST_NAMED = 8
"""Images that can be named for cam: with more, a page of large ones with a plain net could exceed 3 MB."""


@dataclass(frozen=True, kw_only=True)
class DiagnosisConfig:
    """What is asked about a network, and by which images.

    Raises ``ConfigError`` for values that make no diagnosis.
    """

    what: tuple[Literal["all", Analysis], ...] = ("all",)
    """Analyses; all is each of them but identity, which trains."""
    data: str | None = None
    """Images, as for train; by default those of the run, else digits."""
    model: str | None = None
    """Name of the network, for a file of weights."""
    shortcut: ShortcutChoice = "default"
    """Shortcut option, of a network by name or a file of weights."""
    options: dict[str, str] = field(default_factory=dict)
    """Further settings of such a network by name and value, such as: norm group."""
    checkpoint: Literal["last", "best"] = "last"
    """The last epoch of a run, or its best one."""
    plain: Path | None = None
    """The run of the plain counterpart on the same data, as a control."""
    seed: int = 0
    """Decides initial weights and which images are taken."""
    split_seed: int = 0
    """Decides the split of data that comes without one."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """How images and labels are read."""
    batch_size: int = 32
    """Training images in the one batch that gradients, residuals, signal, shattering, rank, step and paths are
    measured on; agreement takes more such batches."""
    images: int = 2000
    """lesion: test images that each lesion is measured on, at most."""
    path_draws: int = 8
    """paths: random paths of each length."""
    landscape_side: int = 15
    """landscape: points along each side of the square; odd, so that the network is in the centre."""
    landscape_reach: float = 1.0
    """landscape: distance from the centre to the edge, in norms of each filter."""
    landscape_images: int = 256
    """landscape: training images that the loss is measured on, at most."""
    cam_images: tuple[int, ...] = ()
    """cam: numbers of test images, from 0; by default the first of each of 8 classes."""
    image: tuple[Path, ...] = ()
    """cam: image files of your own; with cam_images up to 8 in all."""
    cam_layer: str | None = None
    """cam: the layer whose maps are shown, such as stages.0; by default the last stage."""
    stage: int = 0
    """identity: the stage that gets more blocks, counted from 0."""
    added: int = 2
    """identity: how many blocks it gets."""
    epochs: int = 2
    """identity: epochs of further training."""
    device: Device = "auto"
    """auto takes cuda where there is one."""

    def __post_init__(self) -> None:
        require(len(self.what) > 0, "what", self.what, "one or more analyses")
        for word in self.what:
            require_choice("what", word, ("all", *ANALYSES))
        require(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2: BN takes statistics over a batch")
        require(self.images >= 1, "images", self.images, "at least 1")
        require(self.path_draws >= 1, "path_draws", self.path_draws, "at least 1")
        side, reach = self.landscape_side, self.landscape_reach
        require(side >= 3 and side % 2 == 1, "landscape_side", side, "an odd number from 3 on")
        require(isfinite(reach) and reach > 0, "landscape_reach", reach, "a number above 0")
        require(self.landscape_images >= 1, "landscape_images", self.landscape_images, "at least 1")
        named = len(self.cam_images) + len(self.image)
        require(named <= MOST_NAMED, "cam_images", named, f"at most {MOST_NAMED} images, files among them")
        require(min(self.cam_images, default=0) >= 0, "cam_images", self.cam_images, "numbers from 0 on")
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require_choice("device", self.device, ("auto", "cpu", "cuda"))

    @property
    def recipe(self) -> Recipe:
        """The settings of a network that no run describes, but for its name. Nothing is chosen, so nothing held out."""
        return Recipe(
            validation=False,
            shortcut=self.shortcut,
            options=self.options,
            split_seed=self.split_seed,
            decode=self.decode,
            seed=self.seed,
        )

    @property
    def analyses(self) -> list[Analysis]:
        """What was asked for, each analysis once, in the order in which they are shown."""
        every = "all" in self.what
        return [name for name in ANALYSES if name in self.what or (every and name not in TRAINS)]
