"""What the pages share: how a template is filled, and how drawings and settings are put into it."""

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from resnetlab.core.errors import printable
from resnetlab.report.table import Table

NUMBER = re.compile(r"[-+−]?[\d.,]+(e[-+]\d+)?( ?%| [kMG])?( ± \S+)?|–|diverged")
"""What stands at the right of its column, where every cell of it is such."""
LONG = 28
"""Letters beyond which a cell is broken into lines."""
SMALLEST, LARGEST = 0.75, 1.2
"""How much smaller than drawn a figure becomes before it scrolls, and how much larger on a wide page."""
PHONE = 340
"""Pixels that a figure has on a phone."""


def render_template(name: str, room: str = "report", **content: Any) -> str:
    """The page as HTML, of a template in ``room``, which may build on those here. Every text is escaped, but for
    ``Markup``; so is what cannot be printed, line by line."""
    return str(_environment(room).get_template(name).render(**content))


@cache
def _environment(room: str) -> Any:
    """It keeps each template that it has read."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader("resnetlab", place) for place in dict.fromkeys((room, "report"))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.globals["cell_kinds"] = cell_kinds
    return environment


def render_program(name: str, room: str, held: Any, scripts: Sequence[Path], **content: Any) -> str:
    """A page with a program, whose template has ``held``, as JSON that the ``scripts`` read, and ``script``.

    Its policy names that one script and the one style by ``script_hash`` and ``STYLE-HASH``, and no other runs.
    """
    from markupsafe import Markup

    # Within an element of HTML only "<" could end it.
    text = json.dumps(held, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")
    script = "".join(path.read_text(encoding="utf-8") for path in scripts)
    page = render_template(
        name, room, held=Markup(text), script=Markup(script), script_hash=Markup(_hash(script)), **content
    )
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    return page.replace("STYLE-HASH", _hash(style[1]), 1)


def _hash(text: str) -> str:
    """As a policy names a script or a style that it allows."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _printable(value: Any) -> Any:
    from markupsafe import Markup

    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(map(printable, value.split("\n")))
    return value


def cell_kinds(table: Table) -> list[str]:
    """What each column of the table holds: a ``number`` in every cell, a ``long`` text somewhere, else ``text``. The
    first names the rows, so that it is no number."""
    columns = [[row[place] for row in table.rows] for place in range(len(table.heads))]
    longest = [max(map(len, (head, *column))) for head, column in zip(table.heads, columns, strict=True)]
    return [
        "long"
        if longest[place] > LONG
        else "number"
        if place and column and all(map(NUMBER.fullmatch, column))
        else "text"
        for place, column in enumerate(columns)
    ]


def inline_svg(name: str, drawn: bytes) -> str:
    """The drawing as an element of the page: without XML prologue, with ids that no drawing of other name has, and with
    a range of widths within which its letters can be read."""
    svg = drawn.decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
    return svg.replace("<svg", f'<svg aria-hidden="true"{_widths(svg)}', 1)


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as lines of name and text: ``training.epochs`` and ``8``."""
    lines: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            lines |= flatten(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines[f"{prefix}{key}"] = "–" if value is None or value in ([], {}) else text
    return lines


def _widths(svg: str) -> str:
    """The style of a drawing; ``wide`` marks those that a phone cannot show whole."""
    found = re.search(r'width="([\d.]+)pt"', svg)
    if found is None:
        return ""
    pixels = float(found[1]) * 4 / 3
    least = round(SMALLEST * pixels)
    most = f"max-width: {round(LARGEST * pixels)}px"
    return f' class="wide" style="min-width: {least}px; {most}"' if least > PHONE else f' style="{most}"'
