"""What the pages share: how a template is filled, and how drawings and settings are put into it."""

import re
from typing import Any


def render_template(name: str, **content: Any) -> str:
    """The page as HTML. Every text is escaped, but for ``Markup``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("resnetlab", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**content)


def inline_svg(name: str, drawn: bytes) -> str:
    """The drawing as an element of the page: without XML prologue, and with ids that no drawing of other name has."""
    svg = drawn.decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
    return svg.replace("<svg", '<svg aria-hidden="true"', 1)


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
