"""Bundles made by hand: a linear network, whose logits anyone can compute."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from resnetlab.core.serialize import write_record
from resnetlab.deploy.bundle import Bundle, seal
from resnetlab.deploy.golden import GOLDEN, Golden, GoldenImage, golden_pixels, write_golden_images
from resnetlab.deploy.preprocessing import Preprocessing

CLASSES = ("ant", "bee", "cat", "dog")
SIDE = 8


def weights(channels: int = 1) -> np.ndarray:
    """``(SIDE · SIDE · channels, 4)``, so that no two images are likely to have the same logits."""
    return np.random.default_rng(0).normal(0, 0.01, (SIDE * SIDE * channels, len(CLASSES))).astype(np.float32)


def logits_of(pixels: np.ndarray) -> np.ndarray:
    """What the linear network answers for pixels ``(N, side, side, C)``."""
    return pixels.reshape(len(pixels), -1).astype(np.float32) @ weights(pixels.shape[-1])


def linear_bundle(folder: Path, name: str = "insects", channels: int = 1, wrong: float = 0.0) -> Path:
    """A bundle of a linear network in the format onnx, with four golden images; ``wrong`` is added to what was kept of
    their logits."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", SIDE, SIDE, channels])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(CLASSES)])],
        [numpy_helper.from_array(weights(channels), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (folder / "onnx").mkdir(parents=True)
    onnx.save(model, folder / "onnx" / "model.onnx")
    preprocessing = Preprocessing(
        side=SIDE, channels=channels, white=255, mean=(0.0,) * channels, std=(1.0,) * channels
    )
    originals = np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, channels), np.uint8)
    files = write_golden_images(folder, list(originals), SIDE)
    rows = logits_of(golden_pixels(folder, files, preprocessing)) + wrong
    images = tuple(
        GoldenImage(file=file, label=CLASSES[0], answer=CLASSES[row.argmax()], logits=tuple(map(float, row)))
        for file, row in zip(files, rows, strict=True)
    )
    write_record(folder / GOLDEN, Golden(images=images, tolerance={"onnx": 1e-4}))
    seal(Bundle(name=name, model="linear", classes=CLASSES, preprocessing=preprocessing), folder)
    return folder
