import json
from pathlib import Path
from typing import Any

CLOCKS = ("seconds", "images_per_second")


def timeless(out: Path) -> Any:
    """The study in ``results.json`` without seconds and speeds."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key not in CLOCKS}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(json.loads((out / "results.json").read_text()))
