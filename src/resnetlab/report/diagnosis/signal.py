"""Signal and gradient before training, in every setting around the network."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnetlab.records.diagnosis import Diagnosis, SettingResult
from resnetlab.report.diagnosis.panels import drawing
from resnetlab.report.figure import Drawing, plainly
from resnetlab.report.run.figures import PALETTE
from resnetlab.report.table import Table, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Signal before training"
MARKS = {"steady": "o", "exploding": "^", "vanishing": "v", "silent": "x", "broken": "X"}
EDGE = 12.0
"""Orders of magnitude at which the axis ends; what lies beyond stands there."""
LONGEST = 60
"""Letters of a row's name in the figure."""


def tables(diagnosis: Diagnosis) -> list[Table]:
    """Every setting of the grid with its changes and verdict."""
    assert diagnosis.net.signal is not None
    settings = diagnosis.net.signal.settings
    first = settings[0].setting
    rows = [
        (*(one.setting.get(name, "–") for name in first), signed(one.forward), signed(one.backward), one.verdict)
        for one in settings
    ]
    caption = "Change over all blocks before training, in orders of magnitude"
    return [Table(caption=caption, heads=(*first, "signal", "gradient", "verdict"), rows=rows)]


def draw(diagnosis: Diagnosis) -> list[Drawing]:
    """A row for each setting: the change of the signal and that of the gradient, in orders of magnitude."""
    assert diagnosis.net.signal is not None
    settings = diagnosis.net.signal.settings
    return [drawing("signal", _words(settings), lambda: _figure(settings))]


def row_name(one: SettingResult) -> str:
    """A setting in a few words."""
    return ", ".join(
        f"{text} blocks" if name == "blocks" else f"norm {text}" if name == "norm" else text
        for name, text in one.setting.items()
    )


def _words(settings: Sequence[SettingResult]) -> str:
    words: dict[str, list[str]] = {}
    for one in settings:
        words.setdefault(one.verdict, []).append(row_name(one))
    steady = len(words.pop("steady", []))
    parts = [f"{verdict}: {'; '.join(names)}" for verdict, names in words.items()]
    return ". ".join([f"{steady} of {len(settings)} settings are steady before training", *parts]) + "."


def _figure(settings: Sequence[SettingResult]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 0.23 * len(settings) + 1.0), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(-2, 2, color=PALETTE["line"], alpha=0.6, lw=0)
    for row, one in enumerate(settings):
        for value, colour in ((one.forward, "accent"), (one.backward, "warm")):
            if value is not None:
                mark = MARKS[one.verdict]
                axes.plot(max(-EDGE, min(EDGE, value)), row, mark, color=PALETTE[colour], ms=5, clip_on=False)
        if one.forward is None and one.backward is None:
            axes.text(0, row, one.verdict, ha="center", va="center", fontsize=8)
    axes.plot([], [], "o", color=PALETTE["accent"], label="signal, first block to last")
    axes.plot([], [], "o", color=PALETTE["warm"], label="gradient, last block to first")
    names = [plainly(row_name(one), LONGEST) for one in settings]
    axes.set_yticks(range(len(settings)), names, fontsize=8, parse_math=False)
    axes.set_ylim(len(settings) - 0.5, -0.5)
    axes.set_xlim(-EDGE, EDGE)
    axes.set_xlabel("change in orders of magnitude; within the band: steady")
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure
