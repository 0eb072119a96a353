"""What single batches show of a network by depth, as records: gradients of neighbours and of other batches, the rank of
what the blocks give, and what one step of an optimizer changes."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BlockCosines:
    """How alike the gradients of neighbours are at one block's input x, a number for each distance.

    ``means`` are the cosines between ∂L/∂x of an image and of its neighbour, averaged over the images, and ``errors``
    the standard errors of these means. None where a gradient is zero or not finite.
    """

    block: str
    means: list[float | None]
    errors: list[float | None]


@dataclass(frozen=True, kw_only=True)
class ShatteringResult:
    """How alike the gradients of neighbouring images are, by depth (Balduzzi et al. 2017, arXiv:1702.08591).

    The neighbour of each of ``n`` images is that image with noise of ``distance`` times its norm. Of a deep net
    ``blocks`` are some, evenly spread, the first and the last among them.
    """

    n: int
    distances: list[float]
    blocks: list[BlockCosines]


@dataclass(frozen=True, kw_only=True)
class BlockRank:
    """How many directions the outputs of one block fill, over a batch; None where a number is not finite.

    The rows of A are the outputs of the images, flattened, less their mean. ``effective`` is exp(H(p)) with p the
    singular values of A over their sum (Roy & Vetterli 2007), ``stable`` is ‖A‖_F²/‖A‖₂²; both are 0 where all images
    give the same. ``common`` is the share of the outputs' squared norm that is the mean of all images.
    """

    block: str
    effective: float | None
    stable: float | None
    common: float | None


@dataclass(frozen=True, kw_only=True)
class RankResult:
    """The rank of the representation of ``n`` images by depth: at most n - 1. Of a deep net ``blocks`` are some."""

    n: int
    blocks: list[BlockRank]


@dataclass(frozen=True, kw_only=True)
class BlockAgreement:
    """The cosine between the gradients of one block's weights on two batches: its mean over all pairs of batches, and
    the least of them. None where a gradient is zero or not finite."""

    block: str
    mean: float | None
    least: float | None


@dataclass(frozen=True, kw_only=True)
class AgreementResult:
    """How well the gradients of ``batches`` different batches of ``n`` images agree, by block; ``whole`` is that over
    all weights together."""

    n: int
    batches: int
    whole: BlockAgreement
    blocks: list[BlockAgreement]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """How far one step of an optimizer moves a network's weights: ‖W' - W‖/‖W‖ of every block, by its name.

    The step is that of ``optimizer`` at the rate ``lr``, with no step before it, on one batch of ``n`` images.
    ``assumed`` says that no run gave them. ``whole`` is over all weights together. None where a number is not finite,
    or W is zero.
    """

    n: int
    optimizer: str
    lr: float
    assumed: bool
    whole: float | None
    blocks: dict[str, float | None]
