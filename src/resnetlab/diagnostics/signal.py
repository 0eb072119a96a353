"""Signal and gradient by depth before any training: which settings carry both through the network?"""

from math import isfinite, log10

from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError
from resnetlab.diagnostics.probes import Probe
from resnetlab.records.diagnosis import BlockReading, SignalReading

ORDERS = 2.0
"""Orders of magnitude over the whole depth from which on signal or gradient count as exploding or vanishing."""

RULE = (
    "One batch goes through the untrained network and back. Forward is the change of the root mean square of the "
    "signal from the first block's input to the last block's output, backward that of ∂L/∂a from the last block's "
    f"output to the first block's input, in orders of magnitude. More than +{ORDERS:g} in either: exploding; less than "
    f"−{ORDERS:g} in either: vanishing; a value that is not finite: broken; one that is exactly zero: silent; else "
    "steady. That is how a net starts: a steady one may still not train at a given rate, another may at a lower one."
)


def read_signal(net: nn.Module, images: Tensor, labels: Tensor, setting: dict[str, str]) -> SignalReading:
    """The reading of ``net`` for one batch ``(N, C, H, W)``, in training mode, by ``RULE``.

    The statistics of its norms move, as in any training pass: give a network that nobody needs.

    Raises ``ConfigError`` for a network without blocks.
    """
    with Probe(net.train()) as probe:
        F.cross_entropy(net(images), labels).backward()  # type: ignore[no-untyped-call]
    blocks = probe.readings()
    if not blocks:
        raise ConfigError("the signal is read block by block, and this network has no blocks")
    return judge(blocks, setting)


def judge(blocks: list[BlockReading], setting: dict[str, str]) -> SignalReading:
    """The verdict on the readings of a net's blocks, from the input on; one at least."""
    first, last = blocks[0], blocks[-1]
    ends = (first.input_rms, last.output_rms, last.gradient_out_rms, first.gradient_in_rms)
    forward, backward = _orders(ends[0], ends[1]), _orders(ends[2], ends[3])
    values = [value for value in ends if value is not None]
    if len(values) < len(ends):
        verdict: str = "broken"
    elif not all(values):
        verdict = "silent"
    else:
        changes = [change for change in (forward, backward) if change is not None]
        verdict = _word(max(changes), min(changes))
    return SignalReading(setting=setting, blocks=len(blocks), forward=forward, backward=backward, verdict=verdict)  # type: ignore[arg-type]


def _word(most: float, least: float) -> str:
    if most > ORDERS:
        return "exploding"
    return "vanishing" if least < -ORDERS else "steady"


def _orders(start: float | None, end: float | None) -> float | None:
    if not start or not end or not isfinite(start) or not isfinite(end):
        return None
    return log10(end / start)
