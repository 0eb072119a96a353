from math import comb

from resnetlab.report.path_figure import draw_paths
from resnetlab.surveys import PathLength, PathReading


def reading(blocks: int = 6, known: bool = True) -> PathReading:
    """Every path carries half of what one that is a branch shorter does."""
    shares = [comb(blocks, k) * 0.5**k / 1.5**blocks for k in range(blocks + 1)]
    return PathReading(
        seed=0,
        blocks=blocks,
        lengths=[
            PathLength(length=k, paths=k % 2, log_magnitude=-0.3 * k if known else None, share=share if known else None)
            for k, share in enumerate(shares)
        ],
        mean=blocks / 3 if known else None,
        low=0 if known else None,
        high=4 if known else None,
    )


def test_drawing_shows_mean_and_range_and_is_the_same_each_time():
    first = draw_paths(reading())
    assert first == draw_paths(reading())
    assert "mean, 2.0" in first.svg.decode()
    assert "Mean length 2.0; 95 % of the gradient takes 0 to 4 branches." in first.description
    assert first.png.startswith(b"\x89PNG")


def test_one_block_and_no_gradient_are_drawn():
    assert draw_paths(reading(blocks=1)).svg
    drawing = draw_paths(reading(known=False))
    assert "No gradient arrives" in drawing.description
    assert "mean," not in drawing.svg.decode()
