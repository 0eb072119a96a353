"""From the records of surveys to plain language: paths, loss surface, and what answers rest on.

As in ``explain``, every sentence has the number that it rests on, and advice comes from verdicts alone.
"""

from collections.abc import Sequence
from statistics import median

from resnetlab.diagnostics import cam, landscape, paths
from resnetlab.diagnostics.explain import FLOW_ADVICE, SHORTCUT_ADVICE
from resnetlab.records.diagnosis import CamReading, Finding, LandscapeReading, NetReading, PathReading

_PATH_ADVICE = {
    "short": "What trains this net are its short paths: before giving it more blocks, compare with a net of as many "
    "parameters in fewer and wider ones.",
    "long": "The gradient goes through most of the branches, as in a plain net: see under residuals whether they "
    "outweigh their shortcuts. Branches that start at zero (--options zero_init_residual true) begin with short paths.",
    "broken": FLOW_ADVICE["broken"],
}
_LANDSCAPE_ADVICE = {
    "rugged": "Compare with fewer or wider blocks, whose surfaces Li et al. found smoother (§5).",
    "untrained": "The net is no better than guessing on these images: there is no minimum to look at; train it.",
    "broken": FLOW_ADVICE["broken"],
}
_CAM_ADVICE = {
    "coarse": "So few cells do not show the place: take an earlier layer (--cam-layer stages.0), or larger images.",
    "blank": "No place of these maps speaks for the answers: an earlier layer (--cam-layer stages.0) may show more.",
    "broken": FLOW_ADVICE["broken"],
}


def explain_paths(net: NetReading, initial: NetReading | None) -> Finding:
    """How many branches the gradient goes through, in the net and before its training."""
    assert net.paths is not None
    verdict = paths.judge(net.paths)
    shown = [(one.label, one.paths) for one in (net, initial) if one and one.paths]
    sentences = [_path_sentence(label, found) for label, found in shown]
    advice = [_PATH_ADVICE[verdict]] if verdict in _PATH_ADVICE else []
    return Finding(part="paths", verdict=verdict, sentences=sentences, advice=advice, rule=paths.RULE)


def explain_landscape(net: NetReading, control: NetReading | None) -> Finding:
    """How flat and how convex the loss is around the net, and around its plain twin."""
    assert net.landscape is not None
    verdict = landscape.judge(net.landscape)
    shown = [(one.label, one.landscape) for one in (net, control) if one and one.landscape]
    sentences = [_landscape_sentence(label, found) for label, found in shown]
    sentences.append(
        f"One pair of directions was drawn (seed {net.landscape.seed}); another pair (--seed) shows another plane."
    )
    advice = [_LANDSCAPE_ADVICE[verdict]] if verdict in _LANDSCAPE_ADVICE else []
    if verdict == "rugged" and net.plain:
        advice = [SHORTCUT_ADVICE]
    return Finding(part="landscape", verdict=verdict, sentences=sentences, advice=advice, rule=landscape.RULE)


def explain_cam(net: NetReading, control: NetReading | None) -> Finding:
    """Which answers were right, and how much of the map they rest on."""
    verdict = cam.judge(net.cams)
    sentences = []
    for one in (net, control):
        if one and one.cams:
            sentences += _cam_sentences(one.label, one.cams)
    advice = [_CAM_ADVICE[verdict]] if verdict in _CAM_ADVICE else []
    wrong = [reading.sample for reading in net.cams if not reading.right]
    if wrong:
        advice.append(
            f"Not recognised: {_numbers(wrong)}. Look at what is warm there: where it is the ground, not the object, "
            "train with crops closer to the object, or with images of the class on other grounds."
        )
    return Finding(part="cam", verdict=verdict, sentences=sentences, advice=advice, rule=cam.RULE)


def _path_sentence(label: str, found: PathReading) -> str:
    if found.mean is None:
        return f"{label}: no gradient arrives, or none that is finite (n = {found.n} images)."
    return (
        f"{label}: the gradient goes through {found.mean:.1f} of {found.blocks} branches in the mean; "
        f"{paths.HELD:.0%} of it through {found.low} to {found.high} (n = {found.n} images)."
    )


def _landscape_sentence(label: str, found: LandscapeReading) -> str:
    known = [loss for row in found.losses for loss in row if loss is not None]
    centre = "no finite loss" if found.centre is None else f"loss {found.centre:.3g}"
    line = f"{label}: {centre} in the centre (n = {found.n:,} training images, by guessing {found.guess:.3g})"
    if known:
        line += f", up to {_loss(max(known))} on the square"
    shares = [
        f"{word} on {share:.1%} of {where}"
        for word, share, where in (("flat", found.flat, "it"), ("convex", found.convex, "its inner places"))
        if share is not None
    ]
    return "; ".join([line, *shares]) + "."


def _loss(value: float) -> str:
    return f"{value:,.0f}" if 100 <= value < 1e6 else f"{value:.3g}"


def _cam_sentences(label: str, readings: Sequence[CamReading]) -> list[str]:
    right = sum(reading.right for reading in readings)
    high, wide = readings[0].cells
    lines = [
        f"{label}: {right} of {len(readings)} test images are recognised ({_numbers([r.sample for r in readings])}); "
        f"the maps have {high} × {wide} cells."
    ]
    warm = [reading.warm for reading in readings if reading.warm is not None]
    if warm:
        lines.append(f"{label}: {median(warm):.0%} of the map is warm in the median of {len(warm)}.")
    cold = [reading.sample for reading in readings if reading.warm is None]
    if cold:
        lines.append(f"{label}: nothing speaks for the answer in {_numbers(cold)}, or no finite number.")
    return lines


def _numbers(samples: Sequence[int]) -> str:
    shown = ", ".join(map(str, samples))
    return f"image {shown}" if len(samples) == 1 else f"images {shown}"
