from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def vectors_alone() -> Iterator[None]:
    """Figures as a page holds them, as SVG: to draw the PNG as well, which stands in no page, takes twice the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resnetlab.report.figure.to_png", lambda _figure: b"")
        yield
