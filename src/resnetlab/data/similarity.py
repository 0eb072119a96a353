"""Near copies: images that were scaled, compressed, brightened or sharpened, by a perceptual hash.

The hash of an image is its grey thumbnail of 16×16 (its own size, where that is smaller). Two are compared by their
correlation r, which neither brightness nor contrast changes. Images of one kind resemble each other, handwritten ones
above all, so a near copy has to stand out: 1 - r to the nearest image is at most 0.3 of that to the second nearest, as
Lowe (2004, section 7.1) tells a match from a resemblance; or r is so high that only copies reach it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 16
LEAST, COPIES, RATIO = 0.8, 0.998, 0.3
"""Correlation that a near copy has at least; that only copies have; and how far it stands out."""
ROWS = 1024


def thumbnails(images: Tensor) -> Tensor:
    """Perceptual hashes ``(B, s²)`` as uint8 of images ``(B, C, H, W)``, s at most 16."""
    side = min(SIDE, images.shape[-1])
    grey = images.float().mean(1, keepdim=True)
    return F.adaptive_avg_pool2d(grey, side).flatten(1).round().to(torch.uint8)


def near_pairs(earlier: Tensor, later: Tensor) -> list[tuple[int, int]]:
    """Pairs (number in ``earlier``, number in ``later``) of hashes that are near copies, at most one for each later."""
    pairs = []
    known = [_standardised(part) for part in torch.split(earlier, 64 * ROWS)]
    for start in range(0, len(later), ROWS):
        hashes = _standardised(later[start : start + ROWS])
        nearest, at = _two_nearest(hashes, known)
        first, second = nearest[:, 0], nearest[:, 1]
        near = (first >= COPIES) | ((first >= LEAST) & (1 - first <= RATIO * (1 - second)))
        pairs += [(int(at[row, 0]), start + row) for row in near.nonzero().flatten().tolist()]
    return pairs


def _two_nearest(hashes: Tensor, known: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The two highest correlations ``(B, 2)`` of each hash, and the numbers of whom with."""
    best = torch.zeros(len(hashes), 2)
    at = torch.zeros(len(hashes), 2, dtype=torch.int64)
    start = 0
    for part in known:
        values, numbers = (hashes @ part.T).topk(min(2, len(part)), dim=1)
        together, places = torch.cat([best, values], 1), torch.cat([at, numbers + start], 1)
        best, order = together.topk(2, dim=1)
        at = places.gather(1, order)
        start += len(part)
    return best, at


def _standardised(hashes: Tensor) -> Tensor:
    """With mean 0 and length 1, so that products are correlations; images of one colour are like no other."""
    values = hashes.float()
    values = values - values.mean(1, keepdim=True)
    lengths = values.norm(dim=1, keepdim=True)
    return torch.where(lengths > 1, values / lengths.clamp(min=1), 0)
