"""``resnetlab info``: networks side by side, as in the paper's Figure 3 – what runs at which map size, and its cost."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from resnetlab.cli.tables import print_columns
from resnetlab.core.errors import ConfigError
from resnetlab.models.summary import Layer, Summary, summarise
from resnetlab.models.zoo import model_config


def print_summaries(names: Sequence[str], shortcut: str, image_size: int | None) -> None:
    """One column a network: cost first, then its layers from the largest map to the smallest."""
    if not names:
        raise ConfigError("name one or more networks, such as: resnetlab info vgg19 plain34 resnet34")
    overrides: dict[str, Any] = {}
    if shortcut != "default":
        overrides["shortcut"] = None if shortcut == "none" else shortcut
    if image_size is not None:
        overrides["image_size"] = image_size
    summaries = [summarise(model_config(name, **overrides)) for name in names]
    print_columns([("", *names), *cost_rows(summaries), ("", *("" for _ in names)), *layer_rows(summaries)])


def cost_rows(summaries: Sequence[Summary]) -> list[tuple[str, ...]]:
    """Parameters, multiply-adds, depth and memory of each network."""
    return [
        ("input", *("×".join(map(str, s.input)) for s in summaries)),
        ("parameters", *(f"{s.parameters:,}" for s in summaries)),
        ("multiply-adds", *(f"{s.multiply_adds:,}" for s in summaries)),
        ("weight layers", *(str(s.weight_layers) for s in summaries)),
        ("saved / image", *(f"{s.saved_bytes / 2**20:.2f} MiB" for s in summaries)),
    ]


def layer_rows(summaries: Sequence[Summary]) -> list[tuple[str, ...]]:
    """The layers of each network in rows of equal output size, repeated ones counted."""
    columns = [layers_by_size(summary.layers) for summary in summaries]
    sizes = sorted({size for column in columns for size in column}, reverse=True)
    rows = []
    for size in sizes:
        cells = [column.get(size, []) for column in columns]
        for line in range(max(map(len, cells))):
            head = f"output {size}×{size}" if line == 0 else ""
            rows.append((head, *(cell[line] if line < len(cell) else "" for cell in cells)))
    return rows


def layers_by_size(layers: Sequence[Layer]) -> dict[int, list[str]]:
    """Lines such as ``6 × 3×3 conv, 64`` under the side of the map that the layers give."""
    found: dict[int, list[str]] = {}
    for side in dict.fromkeys(layer.side for layer in layers):
        here = [layer for layer in layers if layer.side == side]
        found[side] = fold([layer for layer in here if not layer.on_shortcut])
        found[side] += [f"{line} (shortcut)" for line in fold([layer for layer in here if layer.on_shortcut])]
    return found


def fold(layers: Sequence[Layer]) -> list[str]:
    """Layers with their repetitions counted: equal blocks as ``3 × [a; b; c]``, equal layers as ``6 × a``."""
    blocks = [tuple(layer.label for layer in run) for _, run in groupby(layers, key=lambda layer: layer.block)]
    lines: list[str] = []
    for labels, run in groupby(blocks):
        repeats = len(list(run))
        if repeats > 1 and len(set(labels)) > 1:
            lines.append(f"{repeats} × [{'; '.join(labels)}]")
        else:
            lines += labels * repeats
    counted = [(line, len(list(run))) for line, run in groupby(lines)]
    return [line if count == 1 else f"{count} × {line}" for line, count in counted]
