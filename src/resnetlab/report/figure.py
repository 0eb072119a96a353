"""What figures share: their style, and how matplotlib gives them as SVG and PNG."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",
    # Without a fixed salt the ids in an SVG differ from one drawing to the next.
    "svg.hashsalt": "resnetlab",
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure as a file name without suffix, what it shows in words, and its two renderings."""

    name: str
    description: str
    svg: bytes
    png: bytes


def render(name: str, description: str, figure: "Figure") -> Drawing:
    """The figure as SVG and PNG, equal whenever it is drawn again in the same style."""
    return Drawing(name=name, description=description, svg=to_svg(figure), png=to_png(figure))


def to_png(figure: "Figure") -> bytes:
    """The figure as PNG, with 150 pixels an inch; letters that the font lacks are spelled out, in ``figure`` too."""
    png = BytesIO()
    with _any_letters():
        _spell_out(figure)
        figure.savefig(png, format="png", dpi=150)
    return png.getvalue()


def to_svg(figure: "Figure") -> bytes:
    """The figure as SVG, without the date that would make two drawings of one record differ."""
    svg = BytesIO()
    with _any_letters():
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def plainly(text: str, longest: int) -> str:
    """The text for a figure: no longer than that, and without letters that cannot be shown, which no SVG may hold."""
    shown = "".join(letter if letter.isprintable() else "�" for letter in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def spelled(text: str) -> str:
    """The text with each letter that the font cannot draw as its number: ``\\u72ac`` for 犬, not an empty box."""
    if text.isascii():
        return text
    known = _letters()
    return "".join(letter if ord(letter) in known else letter.encode("unicode_escape").decode() for letter in text)


@cache
def _letters() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def _spell_out(figure: "Figure") -> None:
    from matplotlib.text import Text

    found = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    lacking = [text for text in found if spelled(text.get_text()) != text.get_text()]
    if not lacking:
        return
    for text in lacking:
        text.set_text(spelled(text.get_text()))
    # What stands at a tick is written anew with each drawing.
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label.get_text() for label in axis.get_ticklabels()]
            if any(spelled(label) != label for label in labels):
                axis.set_ticks(axis.get_ticklocs(), list(map(spelled, labels)), parse_math=False)


@contextmanager
def _any_letters() -> Iterator[None]:
    """Draw a name of letters that the font lacks without a warning: an SVG has them in the viewer's font."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
