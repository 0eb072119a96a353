"""What computes the logits of a trained network: torch, ONNX Runtime or OpenVINO. torch is loaded by its own engine
alone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from resnetlab.core.errors import CheckpointError, ConfigError, MissingExtraError, first_line, load_extra, printable
from resnetlab.data.decode import Pixels
from resnetlab.deploy.bundle import BUNDLE, Bundle, checked, read_bundle
from resnetlab.deploy.preprocessing import Preprocessing
from resnetlab.deploy.share import local_folder

EngineName = Literal["auto", "torch", "onnx", "openvino", "int8", "pt2"]
FILES = {
    "onnx": "onnx/model.onnx",
    "openvino": "openvino/model.xml",
    "int8": "int8/model.xml",
    "pt2": "torch/model.pt2",
}
"""The file of each exported format in a bundle. An .xml of OpenVINO has its weights in a .bin beside it."""
Logits = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A trained network behind one of the engines: ``logits`` maps pixels ``(N, side, side, C)``, as
    ``preprocessing.pixels`` gives them, to logits ``(N, K)``."""

    engine: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    logits: Callable[[Pixels], Logits]


def open_predictor(
    source: str | Path,
    engine: EngineName = "auto",
    *,
    checkpoint: Literal["best", "last"] = "best",
    white: int | None = None,
    threads: int = 0,
    device: str = "auto",
) -> Predictor:
    """The network of a run, a bundle or ``hub:owner/name`` behind ``engine``; auto is ONNX Runtime for a bundle that
    holds that format where it is installed, else torch. ``threads`` computes with so many, 0 with as many as there are
    cores; ``device`` is torch's.

    Raises ``ConfigError`` for an engine whose format is not there, ``MissingExtraError`` for one that is not installed;
    else as ``load`` does.
    """
    folder = local_folder(source)
    if not (folder / BUNDLE).is_file():
        if engine not in ("auto", "torch"):
            raise ConfigError(
                f"engine {engine} needs a bundle, and {printable(folder)} is none; make one: "
                f"resnetlab export {printable(folder)} --out BUNDLE --to {engine}"
            )
        return _torch(folder, checkpoint, white, threads, device)
    bundle = read_bundle(folder)
    if engine == "auto":
        if FILES["onnx"] not in bundle.files:
            return _torch(folder, checkpoint, white, threads, device)
        try:
            return open_bundle(bundle, folder, "onnx", threads)
        except MissingExtraError:
            return _torch(folder, checkpoint, white, threads, device)
    if engine == "torch":
        return _torch(folder, checkpoint, white, threads, device)
    return open_bundle(bundle, folder, engine, threads)


def open_bundle(bundle: Bundle, folder: Path, engine: str, threads: int = 0) -> Predictor:
    """The bundle's network in one of its exported formats, a key of ``FILES``. Raises as ``open_predictor`` does."""
    if FILES[engine] not in bundle.files:
        formats = ", ".join(name for name, file in FILES.items() if file in bundle.files) or "none"
        raise ConfigError(
            f"{printable(folder)} was not exported to {engine} (it has {formats}); export it again with --to {engine}"
        )
    path = checked(bundle, folder, FILES[engine])
    if path.suffix == ".xml":
        checked(bundle, folder, str(Path(FILES[engine]).with_suffix(".bin")))
    try:
        logits = {"onnx": _onnx, "openvino": _openvino, "int8": _openvino, "pt2": _pt2}[engine](path, threads)
    except MissingExtraError:
        raise
    except Exception as error:  # each library has errors of its own
        raise CheckpointError(f"{printable(path)} does not load ({first_line(error)}); export it again") from error
    return Predictor(engine=engine, classes=tuple(bundle.classes), preprocessing=bundle.preprocessing, logits=logits)


def _onnx(path: Path, threads: int) -> Callable[[Pixels], Logits]:
    runtime = load_extra("onnxruntime", "the engine onnx", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run(["logits"], {"pixels": pixels})[0], np.float32)


def _openvino(path: Path, threads: int) -> Callable[[Pixels], Logits]:
    openvino = load_extra("openvino", "the engine openvino", "openvino")
    # By itself it computes with bf16 where the processor can, which is not what was verified.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda pixels: np.asarray(model([pixels])[0], np.float32)


def _pt2(path: Path, threads: int) -> Callable[[Pixels], Logits]:
    import torch

    _set_threads(threads)
    module = torch.export.load(path).module()

    def logits(pixels: Pixels) -> Logits:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(pixels)).float())

    return logits


def _torch(
    folder: Path, checkpoint: Literal["best", "last"], white: int | None, threads: int, device: str
) -> Predictor:
    from resnetlab.deploy.load import load

    _set_threads(threads)
    net = load(folder, checkpoint=checkpoint, white=white, device=device)
    return Predictor(engine="torch", classes=net.classes, preprocessing=net.preprocessing, logits=net.logits_of_pixels)


def _set_threads(threads: int) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)
