"""Every network of the zoo in every float32 format, compared with torch: ``python -m tests.deploy.zoo`` writes the
record docs/exports.json, and docs/exports.md from it."""

import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any

import numpy as np
import torch

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import atomic_write, write_json
from resnetlab.deploy.bundle import Bundle, seal
from resnetlab.deploy.compare import LIMIT, FormatCheck, Gates, compare, evidence_of, size_of
from resnetlab.deploy.engines import FILES, open_bundle
from resnetlab.deploy.formats import FORMATS, Job
from resnetlab.deploy.load import TrainedNetwork
from resnetlab.deploy.preprocessing import Preprocessing
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.zoo import create_model, list_models
from tests.conftest import ROOT

RECORD, PAGE = ROOT / "docs" / "exports.json", ROOT / "docs" / "exports.md"
FORMATS_HERE = ("onnx", "openvino", "pt2")
SIDE, CLASSES, IMAGES = 32, 10, 64
NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.GroupNorm)
FEW = 16
"""Images for networks of a thousand layers."""
ALIKE = 0.01
"""Standard deviation of a logit over the images, over the largest logit, below which they tell nothing."""


def made(name: str) -> TrainedNetwork:
    """The network with its initial weights, conditioned, and in its norms the mean of the initial statistics and a
    batch's, without shortcuts a batch's alone. With the initial ones torch differs from itself in another batch, by
    39 % of the logits of seresnet152d, and the images of a deep plain network come out alike."""
    sizes = {} if name.startswith("mlp") else {"image_size": SIDE}
    net = create_model(name, num_classes=CLASSES, **sizes)
    side, channels = net.config.image_size, net.config.in_chans
    mean, std = (127.5,) * channels, (73.9,) * channels
    preprocessing = Preprocessing(side=side, channels=channels, white=255, mean=mean, std=std)
    trained = TrainedNetwork(
        net=net, classes=tuple(map(str, range(CLASSES))), preprocessing=preprocessing, model=name, origin=Path(name)
    )
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    for module in net.modules():
        if isinstance(module, NORMS[:2]):
            module.momentum = 1.0 if blocks and all(block.shortcut is None for block in blocks) else 0.5
    condition(net)
    images = trained.pixel_network.standardise(torch.from_numpy(pixels_for(preprocessing, 16, 1)))
    with torch.no_grad():
        net.train()(images)
    net.eval()
    return trained


@torch.no_grad()
def condition(net: torch.nn.Module) -> None:
    """Let rounding stay small through all blocks, as it does in trained networks: branches of a quarter of their size
    beside a shortcut, and layers near the identity where there is none."""
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    for block in (block for block in blocks if block.shortcut is not None):
        last = [part for part in block.branch.modules() if isinstance(part, (*NORMS, torch.nn.Linear))][-1]
        if isinstance(last, NORMS):
            torch.nn.init.constant_(last.weight, 0.25)
        else:
            last.weight.mul_(0.25 / len(blocks) ** 0.5)
    # A VGG has no blocks, and no shortcut anywhere.
    for plain in [block.branch for block in blocks if block.shortcut is None] if blocks else [net]:
        for layer in plain.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.mul_(0.1).add_(torch.nn.init.dirac_(torch.empty_like(layer.weight)))
            elif blocks and isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(0.1).add_(torch.nn.init.eye_(torch.empty_like(layer.weight)))


def pixels_for(preprocessing: Preprocessing, count: int, seed: int) -> np.ndarray:
    """Images of squares, from black to white: noise would make all of them alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, preprocessing.channels)).astype(np.uint8)
    times = -(-preprocessing.side // 4)
    return np.ascontiguousarray(coarse.repeat(times, 1).repeat(times, 2)[:, : preprocessing.side, : preprocessing.side])


def checks(name: str, formats: tuple[str, ...] = FORMATS_HERE) -> list[FormatCheck]:
    """The formats of one network beside torch, batches of 1 and 7 among them."""
    trained = made(name)
    deep = re.search(r"\d{4}$", name)
    evidence = evidence_of(trained, pixels_for(trained.preprocessing, FEW if deep else IMAGES, 2))
    if float(evidence.logits.std(axis=0).max()) < ALIKE * float(np.abs(evidence.logits).max()):
        raise ValueError(f"{name} answers every image alike, which compares nothing")
    bundle = Bundle(name=name, model=name, classes=trained.classes, preprocessing=trained.preprocessing)
    with TemporaryDirectory() as place:
        folder = Path(place)
        job = Job(trained=trained, bundle=bundle, folder=folder)
        for format_name in formats:
            FORMATS[format_name].write(job)
        sealed = seal(bundle, folder)
        return [
            replace(
                compare(open_bundle(sealed, folder, format_name, threads=1), evidence, Gates()),
                bytes=size_of((folder / FILES[format_name]).parent),
            )
            for format_name in formats
        ]


def main(names: list[str]) -> None:
    """Compare the networks that the record has not yet, and write it after each."""
    torch.set_num_threads(1)
    known = json.loads(RECORD.read_text())["networks"] if RECORD.is_file() else {}
    for name in names:
        if name not in known:
            known[name] = [asdict(check) | {"agreement": check.agreement} for check in checks(name)]
            ordered = {each: known[each] for each in list_models() if each in known}
            write_json(RECORD, {"environment": describe_environment("cpu", 1), "side": SIDE, "networks": ordered})
            sys.stdout.write(f"{name}: {[(check['name'], check['relative']) for check in known[name]]}\n")
            sys.stdout.flush()
    atomic_write(PAGE, page(json.loads(RECORD.read_text())))


def page(record: dict[str, Any]) -> str:
    """The table: by network and format the largest difference of a logit, and the size in kB."""
    networks = record["networks"]
    found = [check for each in networks.values() for check in each]
    heads = " | ".join(f"{name}: difference | kB" for name in FORMATS_HERE)
    rows = []
    for name, each in networks.items():
        figures = (f"{check['relative']:.1e} | {check['bytes'] / 1000:,.0f}" for check in each)
        rows.append(f"| `{name}` | {each[0]['n']} | {' | '.join(figures)} |")
    environment = record["environment"]
    changed, worst = sum(check["changed"] for check in found), max(check["relative"] for check in found)
    failing = ", ".join(name for name, each in networks.items() if not all(c["passed"] for c in each)) or "none"
    text = (
        f"{len(networks)} of the {len(list_models())} networks of the zoo × {len(FORMATS_HERE)} formats: {changed} "
        f"answers changed. The largest difference of a logit is {worst:.1e} of the largest logit; at most {LIMIT:.0e} "
        f"passes; not within it: {failing}. "
        f"Each network has its initial weights, made well-conditioned, {CLASSES} classes, and statistics of a batch. "
        f"Images have {record['side']} pixels (MLPs: 8), batches are of 1, 7 and 32. `resnetlab export` compares a "
        "trained network in the same way, with its test images."
    )
    table = [f"| network | images | {heads} |", f"|---|---|{'---|' * 2 * len(FORMATS_HERE)}", *rows]
    machine = (
        f"{environment['processor']}, {environment['system']}; Python {environment['python']}, "
        f"torch {environment['torch']}, {environment['threads']} thread, of the rows recorded last; older ones are "
        "of an AMD EPYC. Written by `tests/deploy/zoo.py`."
    )
    return "\n".join(["# Every network in every format", "", fill(text, 120), "", *table, "", machine, ""])


if __name__ == "__main__":
    main(sys.argv[1:] or list_models())
