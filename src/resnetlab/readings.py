"""What diagnostics found, as records: drawn and reported without torch, like every other result."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class BlockReading:
    """One block y = g(F(x) + S(x)) over one batch; None where a number is not finite, or there is no such thing.

    - ``input_rms`` and ``output_rms`` are the root mean squares of x and y, ``gradient_in_rms`` and
      ``gradient_out_rms`` those of the gradients.
    - ``ratio`` is ‖F(x)‖ / ‖S(x)‖, of a plain net ‖F(x)‖ / ‖x‖; norms are L2 over the batch.
    - ``responses`` are the standard deviations of what each norm of F gives, after it and before any activation or
      addition, from the first to the last (He et al. 2015, arXiv:1512.03385, Figure 7); of F(x) alone without norms.
    - ``cosine`` is that between x and y, averaged over the pictures, where they have one shape: 1 for the identity.
    - ``dead`` is the share of channels of y that are zero in every picture, ``zeros`` that of all values of y; in
      pre-activation order of what the branch reads, p(x).
    - ``gradient_in`` is ‖∂L/∂x‖. ``gradient_branch`` and ``gradient_shortcut`` are the norms of its two summands, what
      arrives through F and through S; those of ‖∂L/∂p(x)‖ where both read p(x). ``gradient_out`` is ‖∂L/∂y‖.
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
class Lesion:
    """What one change to a network's blocks costs: the blocks, and the test error and loss without retraining."""

    blocks: list[str]
    error: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class LesionReading:
    """A trained network with blocks dropped or exchanged (Veit et al. 2016, arXiv:1605.06431, §4).

    ``dropped`` has each block that can go, alone. ``several`` has random sets of blocks, ``swapped`` neighbours that
    change places. ``fixed`` are the blocks that change the shape, which cannot be dropped.
    """

    intact: Lesion
    dropped: list[Lesion]
    several: list[Lesion]
    swapped: list[Lesion]
    fixed: list[str]


@dataclass(frozen=True, kw_only=True)
class SignalReading:
    """How signal and gradient change over the depth of a network before any training.

    ``forward`` is in orders of magnitude from the first block's input to the last block's output, of the root mean
    square; ``backward`` from the last block's output to the first block's input, of that of ∂L. None where a number is
    zero or not finite. ``diagnostics.signal`` says by which rule the verdict comes about.
    """

    setting: dict[str, str]
    blocks: int
    forward: float | None
    backward: float | None
    verdict: Literal["steady", "exploding", "vanishing", "silent", "broken"]
