"""What is measured of a network at one moment of its training, beside its gradients by depth: how alike the gradients
of neighbouring images are, how well those of two half batches agree, and how many directions its features fill."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from resnetlab.core.randomness import derive_seed, generator
from resnetlab.models.blocks import ResidualBlock

DISTANCE = 0.01
"""How far a neighbour lies from its image, relative to the norm of that."""

Call = Callable[[Tensor], Tensor]


@contextmanager
def left_as_it_was(net: nn.Module, seed: int) -> Iterator[Call]:
    """A call of ``net`` in training mode, images ``(N, C, H, W)`` to logits, after which it is what it was.

    Norms take the statistics of the batch and keep their running ones; what the network draws at random is a function
    of ``seed``, the same in every call; gradients can be taken of frozen weights too. Outside, the network has its own
    modes, frozen parts and statistics, and torch its random state.
    """
    modes = {module: module.training for module in net.modules()}
    frozen = [parameter for parameter in net.parameters() if not parameter.requires_grad]
    device = next(net.parameters()).device

    def call(images: Tensor) -> Tensor:
        torch.manual_seed(derive_seed(seed, "gradients"))
        logits: Tensor = functional_call(net, {name: one.clone() for name, one in net.named_buffers()}, (images,))
        return logits

    net.train().requires_grad_(True)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            # Still in training mode on the way back: a checkpointed net computes parts of itself again.
            yield call
    finally:
        # Mode by mode: of a net that is half frozen not every part is in training.
        for module, training in modes.items():
            module.training = training
        for parameter in frozen:
            parameter.requires_grad_(False)


@dataclass(kw_only=True)
class Tapped:
    """Tensors that went through a network: what each block read and what it gave, by its name."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def tapped(inputs: dict[str, nn.Module], outputs: dict[str, nn.Module]) -> Iterator[Tapped]:
    """Within, the inputs and outputs of these modules in the latest pass forward, with their graph."""
    found = Tapped()

    def enter(name: str) -> Callable[..., tuple[Tensor, ...]]:
        def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (x,) = given
            # A net whose first layer is a block: its images have no gradient otherwise.
            x = x if x.requires_grad else x.detach().requires_grad_()
            # Checkpointed parts are computed a second time on the way back, and that is no part of the graph.
            found.inputs.setdefault(name, x)
            return (x,)

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: tuple[Tensor, ...], y: Tensor) -> None:
            found.outputs.setdefault(name, y)

        return hook

    handles = [module.register_forward_pre_hook(enter(name)) for name, module in inputs.items()]
    handles += [module.register_forward_hook(leave(name)) for name, module in outputs.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def blocks_of(net: nn.Module) -> dict[str, nn.Module]:
    """The blocks of ``net`` by name, from the input on."""
    return {name: module for name, module in net.named_modules() if isinstance(module, ResidualBlock)}


def spread(blocks: dict[str, nn.Module], most: int) -> dict[str, nn.Module]:
    """At most so many of the blocks, evenly spread, the first and the last among them."""
    names = list(blocks)
    if len(names) <= most:
        return blocks
    return {names[place]: blocks[names[place]] for place in (n * (len(names) - 1) // (most - 1) for n in range(most))}


def neighbours(images: Tensor, seed: int, distance: float = DISTANCE) -> Tensor:
    """A neighbour of every image of ``(N, C, H, W)``: x + δ with ‖δ‖ = distance · ‖x‖, its direction drawn at random.

    The directions are standard normal noise of the stream (seed, "neighbours").
    """
    noise = generator(seed, "neighbours").standard_normal(tuple(images.shape), dtype="float32")
    delta = torch.from_numpy(noise).to(images)
    sizes = images.flatten(1).norm(dim=1) / delta.flatten(1).norm(dim=1)
    near: Tensor = images + distance * delta * sizes.view(-1, *[1] * (images.dim() - 1))
    return near


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """The cosine between each row of two ``(N, …)``, ``(N,)`` in float64; no number where one of them is zero."""
    a, b = first.detach().flatten(1).double(), second.detach().flatten(1).double()
    found: Tensor = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    return found


def cosine(first: Sequence[Tensor], second: Sequence[Tensor]) -> float | None:
    """The cosine between two gradients, each in as many tensors; None where one is zero or not finite."""
    # Tensor by tensor: all of them at once in float64 would take twice the memory of both gradients.
    sums = torch.stack(
        [_products(a.detach().double(), b.detach().double()) for a, b in zip(first, second, strict=True)]
    )
    inner, ours, theirs = sums.sum(dim=0)
    return finite(inner / (ours.sqrt() * theirs.sqrt()))


def _products(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([(a * b).sum(), (a * a).sum(), (b * b).sum()])


def finite(value: Tensor) -> float | None:
    """The number; None where it is none."""
    return float(value) if value.isfinite() else None


def effective_rank(singular: Tensor) -> float | None:
    """exp(H(p)), with p the singular values over their sum and H(p) = -Σ p ln p (Roy & Vetterli 2007, EUSIPCO, eq. 3).

    0 where all are zero, None where one is not finite.
    """
    if not singular.isfinite().all():
        return None
    total = singular.sum()
    if not total:
        return 0.0
    share = singular / total
    return float(torch.special.entr(share).sum().exp())


def stable_rank(singular: Tensor) -> float | None:
    """‖A‖_F² / ‖A‖₂² by the singular values of A; 0 where all are zero, None where one is not finite."""
    if not singular.isfinite().all():
        return None
    largest = singular.max()
    return ((singular / largest) ** 2).sum().item() if largest else 0.0


def singular_values(features: Tensor) -> Tensor:
    """The singular values of ``(N, …)`` less the mean of its rows, each row flattened; N of them, in float64.

    They are the roots of the eigenvalues of the N × N matrix of inner products, which costs N² F multiply-adds for F
    features; what lies below its rounding error is 0.
    """
    rows = features.detach().flatten(1).double()
    rows = rows - rows.mean(dim=0)
    gram = rows @ rows.T
    if not gram.isfinite().all():
        return gram.new_full((len(rows),), float("nan"))
    values = torch.linalg.eigvalsh(gram)
    noise = len(rows) * torch.finfo(gram.dtype).eps * values.max()
    return torch.where(values > noise, values, 0).sqrt()
