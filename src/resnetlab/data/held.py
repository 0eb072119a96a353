"""Which encoded images are decoded once, into memory; the others are decoded whenever they are asked for."""

MOST_ARRAY_BYTES = 1 << 30
"""Decoded images of both splits together that are held in memory."""
SMALL = 64
"""Images cut to at most this side are held in memory whatever their own size is."""
CHANNELS = 3
USUAL_SIDE = 224
"""Side of images that have no common one of their own."""


def is_held(side: int, images: int, *, whole: bool) -> bool:
    """Whether so many images of that side are held: they fit, and are ``whole`` (not cut or resized), or small."""
    return (whole or side <= SMALL) and images * CHANNELS * side**2 <= MOST_ARRAY_BYTES
