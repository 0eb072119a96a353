"""What a diagnosis found, as records: drawn and reported without torch, like every other result.

To add an analysis: its name in ``Analysis``, its record here as a field of ``NetResult``, and a file of that name in
``diagnostics`` and in ``report.diagnosis``.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from resnetlab.core.errors import DataError
from resnetlab.core.files import read_json
from resnetlab.core.serialize import from_plain
from resnetlab.records.by_depth import AgreementResult, RankResult, ShatteringResult, StepResult
from resnetlab.records.gradients import BlockGradient, Flow
from resnetlab.records.run import Metrics

DIAGNOSIS = "diagnosis.json"
"""The file of a ``Diagnosis`` in its folder."""

Analysis = Literal[
    "gradients",
    "residuals",
    "signal",
    "shattering",
    "rank",
    "agreement",
    "step",
    "lesion",
    "paths",
    "landscape",
    "cam",
    "identity",
]
ANALYSES: tuple[Analysis, ...] = get_args(Analysis)
"""Every analysis, in the order in which they are shown."""

SplitName = Literal["train", "validation", "test"]

HALF = 0.5
"""Heat from which a place of a map counts as warm; the warmest has 1."""
LARGEST_IMAGE = 128
"""Pixels of the longer side up to which an image is kept."""


@dataclass(frozen=True, kw_only=True)
class BlockStatistics:
    """One block y = g(F(x) + S(x)) over one batch; None where a number is not finite, or there is no such thing.

    - ``input_rms`` and ``output_rms`` are the root mean squares of x and y, ``gradient_in_rms`` and
      ``gradient_out_rms`` those of the gradients.
    - ``ratio`` is ‖F(x)‖ / ‖S(x)‖, of a plain net ‖F(x)‖ / ‖x‖; norms are L2 over the batch.
    - ``responses`` are the standard deviations of what each norm of F gives, after it and before any activation or
      addition, from the first to the last (He et al. 2015, arXiv:1512.03385, Figure 7); of F(x) alone without norms.
    - ``cosine`` is that between x and y, averaged over the images, where they have one shape: 1 for the identity.
    - ``dead`` is the share of channels of y that are zero in every image, ``zeros`` that of all values of y; in
      pre-activation order of what the branch reads, p(x).
    - ``gradient_in`` is ‖∂L/∂x‖. ``gradient_branch`` and ``gradient_shortcut`` are the norms of its two summands, what
      arrives through F and through S; those of ‖∂L/∂p(x)‖ where both read p(x). ``gradient_out`` is ‖∂L/∂y‖.
    - With a gate, y = g(t F(x) + c S(x)), all of these are of t F(x) and c S(x); what arrives through t and c, where x
      decides them, is in neither summand.
    """

    block: str
    input_norm: float | None
    branch_norm: float | None
    shortcut_norm: float | None
    ratio: float | None
    responses: list[float | None]
    cosine: float | None
    dead: float | None
    zeros: float | None
    input_rms: float | None
    output_rms: float | None
    gradient_in: float | None = None
    gradient_branch: float | None = None
    gradient_shortcut: float | None = None
    gradient_out: float | None = None
    gradient_in_rms: float | None = None
    gradient_out_rms: float | None = None


@dataclass(frozen=True, kw_only=True)
class SettingResult:
    """How signal and gradient change over the depth of a network of one setting before any training.

    ``forward`` is in orders of magnitude from the first block's input to the last block's output, of the root mean
    square; ``backward`` from the last block's output to the first block's input, of that of ∂L. None where a number is
    zero or not finite. ``diagnostics.signal`` gives the rule of the verdict.
    """

    setting: dict[str, str]
    blocks: int
    forward: float | None
    backward: float | None
    verdict: Literal["steady", "exploding", "vanishing", "silent", "broken"]


@dataclass(frozen=True, kw_only=True)
class SignalResult:
    """The grid of settings around a network; ``own`` is the network's own setting, empty where it is none of them."""

    own: dict[str, str]
    settings: list[SettingResult]


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """What one change to a network's blocks costs: the blocks, and the error and loss without retraining. The loss
    is None where it is not finite."""

    blocks: list[str]
    error: float
    loss: float | None


@dataclass(frozen=True, kw_only=True)
class LesionResult:
    """A trained network with blocks dropped or exchanged (Veit et al. 2016, arXiv:1605.06431, §4).

    ``dropped`` has each block that can go, alone. ``several`` has random sets of blocks, ``swapped`` neighbours that
    change places. ``fixed`` are the blocks that cannot be dropped: they change the shape, or are alone. ``n`` is the
    number of images of the reported split, ``chance`` the error of always predicting the most frequent class.
    """

    n: int
    chance: float
    intact: Lesion
    dropped: list[Lesion]
    several: list[Lesion]
    swapped: list[Lesion]
    fixed: list[str]

    @property
    def costs(self) -> list[float]:
        """What each single block is worth: by how much the error rises without it."""
        return [change.error - self.intact.error for change in self.dropped]


@dataclass(frozen=True, kw_only=True)
class PathLength:
    """The paths through ``length`` branches, and through the shortcut of every other block.

    ``log_magnitude`` is log10 of the gradient at the input through one of them, on average; ``share`` is the part of
    the gradient through all paths that comes through those of this length. A gradient of exactly zero has no logarithm
    (None) and the share 0; one that is not finite has neither. ``paths`` were measured; where that is 0, the logarithm
    lies on the line between the lengths that were.
    """

    length: int
    paths: int
    log_magnitude: float | None
    share: float | None


@dataclass(frozen=True, kw_only=True)
class PathResult:
    """How long the paths are that carry a network's gradient (Veit et al. 2016, arXiv:1605.06431, Figure 6).

    ``lengths`` goes from 0 to the number of blocks; the gradient is that of one batch of ``n`` images. ``mean`` is
    the length of a path, weighted by gradient; those from ``low`` to ``high`` hold 95 % of it. All three are None where
    no gradient arrives, or one that is not finite.
    """

    seed: int
    n: int
    blocks: int
    lengths: list[PathLength]
    mean: float | None
    low: int | None
    high: int | None


@dataclass(frozen=True, kw_only=True)
class LandscapeResult:
    """The loss on a square of ``side`` × ``side`` networks around one, along two random directions.

    ``losses[row][column]`` is the loss at w + a δ + b η, where a = ``axis[column]`` and b = ``axis[row]``; None where
    it is not a finite number. ``centre`` is the network's own, at a = b = 0, over ``n`` images; ``guess`` is ln C,
    that of guessing among C classes. ``flat`` and ``convex`` are shares of the square, from 0 to 1, by the rule in
    ``diagnostics.landscape``. ``flat`` is None where the network is no better than guessing, ``convex`` where no place
    can be judged.
    """

    seed: int
    n: int
    axis: list[float]
    losses: list[list[float | None]]
    centre: float | None
    guess: float
    flat: float | None
    convex: float | None

    def __post_init__(self) -> None:
        if not self.axis or _shape(self.losses) != (self.side, self.side):
            raise ValueError(f"losses must have {self.side} rows of {self.side} numbers, and at least one")

    @property
    def side(self) -> int:
        """Networks along each direction."""
        return len(self.axis)


def _shape(rows: Sequence[Sequence[float | None]]) -> tuple[int, int] | None:
    """Rows and columns; None where the rows differ in length, or there is nothing."""
    lengths = {len(row) for row in rows}
    return (len(rows), lengths.pop()) if len(lengths) == 1 and 0 not in lengths else None


@dataclass(frozen=True, kw_only=True)
class CamResult:
    """Where in one image the answer of a network rests on (Grad-CAM, Selvaraju et al. 2017, arXiv:1610.02391).

    ``sample`` is its number in the reported split, None for an image file of the user's; ``name`` its file's name,
    where it has one. ``true`` (None where it is not known) and ``predicted`` are names of classes, and ``probability``
    is that of the latter; both are None where it is no finite number. ``heat`` is the map of the predicted class as the
    layer has it, over its largest value: all 0 where nothing speaks for the class, None where it is no finite number.
    ``image`` is a PNG of at most ``LARGEST_IMAGE`` pixels a side in base64.
    """

    sample: int | None
    name: str | None = None
    true: str | None
    predicted: str | None
    probability: float | None
    heat: list[list[float | None]]
    image: str

    def __post_init__(self) -> None:
        if not _shape(self.heat):
            raise ValueError("heat must have rows of equal length, and at least one number")

    @property
    def label(self) -> str:
        """What a sentence calls the image: its number, its file, or both."""
        if self.sample is None:
            return self.name or "given"
        return f"{self.sample} ({self.name})" if self.name else str(self.sample)

    @property
    def cells(self) -> tuple[int, int]:
        """Height and width of the map."""
        return len(self.heat), len(self.heat[0])

    @property
    def right(self) -> bool | None:
        """Whether the answer is the true class; None where that is not known."""
        return None if self.true is None else self.predicted == self.true

    @property
    def warm(self) -> float | None:
        """The share of the map with at least half of the largest heat; None where there is no heat."""
        heats = [heat for row in self.heat for heat in row]
        if None in heats or not any(heats):
            return None
        return sum(heat is not None and heat >= HALF for heat in heats) / len(heats)


@dataclass(frozen=True, kw_only=True)
class IdentityResult:
    """A trained network made deeper by blocks that are the identity, and trained on (``models.surgery.deepen``).

    ``added`` blocks stand behind those of ``stage``, which makes ``blocks`` in all. ``equal`` says whether every logit
    of the reported split stayed the same to the bit. ``before`` is the network as it was, ``deeper`` the deepened one
    after ``epochs`` more of training, ``same`` the one of the old depth after as many: the control.
    """

    stage: int
    added: int
    blocks: int
    equal: bool
    epochs: int
    before: Metrics
    deeper: Metrics
    same: Metrics


@dataclass(frozen=True, kw_only=True)
class NetResult:
    """One network and what was measured of it; what was not asked for is empty or None.

    ``state`` says in words how it came by its weights. ``gradients``, ``flow`` and ``blocks`` come from one pass of the
    batch in training mode.
    """

    model: str
    state: str
    parameters: int
    plain: bool
    gradients: list[BlockGradient] = field(default_factory=list)
    flow: Flow | None = None
    blocks: list[BlockStatistics] = field(default_factory=list)
    signal: SignalResult | None = None
    shattering: ShatteringResult | None = None
    rank: RankResult | None = None
    agreement: AgreementResult | None = None
    step: StepResult | None = None
    lesion: LesionResult | None = None
    paths: PathResult | None = None
    landscape: LandscapeResult | None = None
    cams: list[CamResult] = field(default_factory=list)
    identity: IdentityResult | None = None

    @property
    def label(self) -> str:
        """The network in a few words."""
        return f"{self.model}, {self.state}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One analysis in plain language: the verdict, the sentences with the numbers it rests on, what the user might do
    about it, and the rule with its thresholds."""

    analysis: Analysis
    verdict: str
    sentences: list[str]
    advice: list[str]
    rule: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What a network is like, analysis by analysis.

    ``net`` is the network that was asked about, ``initial`` the same at initialisation where it was trained here and an
    analysis compares with that, ``plain`` its plain counterpart where one was given. ``batch`` is the number of images
    in the one batch that most is measured on, ``split`` the split that errors and answers are of. ``command``
    reproduces the diagnosis.
    """

    source: str
    command: str
    split: SplitName = "test"
    batch: int
    net: NetResult
    initial: NetResult | None
    plain: NetResult | None
    findings: list[Finding]
    notes: list[str]
    data: dict[str, Any]
    environment: dict[str, Any]
    seconds: float
    format: Literal[2] = 2

    @property
    def trained(self) -> dict[str, NetResult]:
        """The network and its plain counterpart, by names that nobody outside chose."""
        pair = {"this net": self.net, "plain": self.plain}
        return {name: net for name, net in pair.items() if net}


def read_diagnosis(path: Path) -> Diagnosis:
    """The record in ``path``, of this format or of 1. Raises ``DataError`` where it is missing, damaged or none."""
    plain = read_json(path)
    return from_plain(Diagnosis, convert(plain, _from_format_1, str(path)), str(path))


def convert(plain: Any, from_format_1: Callable[[dict[str, Any]], dict[str, Any]], origin: str) -> Any:
    """``plain`` itself, or what ``from_format_1`` makes of a record of that format. Raises ``DataError`` for damage."""
    if not isinstance(plain, dict) or plain.get("format", 1) != 1:
        return plain
    try:
        command = re.sub(r"(--(cam-|landscape-)?)pictures\b", r"\1images", plain["command"])
        return from_format_1(plain) | {"command": command, "format": 2}
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{origin} is damaged or is not ours: {error!r} in a record of format 1") from error


def net_from_format_1(net: dict[str, Any]) -> dict[str, Any]:
    """A ``NetResult`` of format 1, in which an image of ``cams`` was called picture."""
    cams = [renamed(cam, {"picture": "image"}) for cam in net.get("cams", [])]
    return net | {"cams": cams}


def renamed(plain: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """``plain`` with some of its keys changed."""
    return {names.get(name, name): value for name, value in plain.items()}


def _from_format_1(old: dict[str, Any]) -> dict[str, Any]:
    new = renamed(old, {"control": "plain"})
    signal, identity = new.pop("signal"), new.pop("identity")
    for name in ("net", "initial", "plain"):
        new[name] = new[name] and net_from_format_1(new[name])
    new["net"] |= {"signal": {"own": {}, "settings": signal} if signal else None, "identity": identity}
    new["findings"] = [renamed(finding, {"part": "analysis"}) for finding in new["findings"]]
    return new
