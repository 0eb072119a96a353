"""The formats that a trained network is exported to: what each one writes, and what it needs for that."""

import contextlib
import io
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from resnetlab.core.errors import ConfigError, load_extra
from resnetlab.core.files import atomic_write
from resnetlab.core.randomness import generator
from resnetlab.data.dataset import Images
from resnetlab.data.decode import Pixels
from resnetlab.deploy.bundle import WEIGHTS, Bundle, seal, write_config
from resnetlab.deploy.engines import FILES
from resnetlab.deploy.load import TrainedNetwork
from resnetlab.deploy.preprocessing import Preprocessing
from resnetlab.deploy.web.page import require_page, write_web
from resnetlab.models.architectures import ROWS, config_to_plain
from resnetlab.models.key_mapping import their_names
from resnetlab.models.lookalikes import same_function
from resnetlab.models.summary import summarise
from resnetlab.models.weights import export_weights

BATCH_AXIS = {"pixels": {0: torch.export.Dim("batch")}}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a format is written of: the trained network, the bundle in whose ``folder`` it comes, and the training
    images, ``calibrate`` of which set the ranges of 8-bit numbers."""

    trained: TrainedNetwork
    bundle: Bundle
    folder: Path
    train: Images | None = None
    calibrate: int = 300

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The network with its standardisation as a graph, for batches of any size."""
        side, channels = self.trained.preprocessing.side, self.trained.preprocessing.channels
        # Two images, as a batch of one would be taken for the only size; and no view, whose storage would be kept.
        example = torch.zeros(2, side, side, channels, dtype=torch.uint8)
        program = torch.export.export(self.trained.pixel_network, (example,), dynamic_shapes=BATCH_AXIS)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of the exporting machine
        return program

    @cached_property
    def calibration(self) -> Pixels:
        """Training images, drawn by their number alone."""
        assert self.train is not None
        numbers = generator(0, "calibrate").permutation(len(self.train))[: self.calibrate]
        return pixels_of(self.train, np.sort(numbers), self.trained.preprocessing)


def pixels_of(images: Images, numbers: "np.ndarray[Any, np.dtype[np.int64]]", preprocessing: Preprocessing) -> Pixels:
    """The images of those numbers as pixels ``(N, side, side, C)`` from 0 to 255."""
    plan = torch.split(torch.from_numpy(numbers), 64)
    return np.stack(
        [
            preprocessing.pixels(image.permute(1, 2, 0).numpy(), preprocessing.white)
            for batch in images.batches(plan)
            for image in batch
        ]
    )


def write_onnx(job: Job) -> None:
    """uint8 ``pixels`` ``(batch, side, side, C)`` to float32 ``logits`` ``(batch, K)``; the exporter folds norms into
    convolutions. Classes and preprocessing are in the metadata of the file."""
    with _quiet():
        program = torch.onnx.export(
            job.program,
            dynamo=True,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_shapes=BATCH_AXIS,
            verbose=False,
        )
        assert program is not None
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # where in the exporting machine's files it comes from
        program.model.metadata_props.update(
            classes=json.dumps(job.bundle.classes, ensure_ascii=False),
            preprocessing=json.dumps(job.trained.preprocessing.plain),
        )
        path = _place(job, "onnx")
        program.save(path)


def write_openvino(job: Job) -> None:
    """``model.xml`` and ``model.bin``, with float32 weights."""
    openvino = load_extra("openvino", "the format openvino", "openvino")
    with _quiet():
        model = openvino.convert_model(str(job.folder / FILES["onnx"]))
        openvino.save_model(model, str(_place(job, "openvino")), compress_to_fp16=False)


def write_int8(job: Job) -> None:
    """Weights and maps as 8-bit numbers, whose ranges ``calibrate`` training images set (NNCF, post-training)."""
    openvino, nncf = (load_extra(name, "the format int8", "openvino") for name in ("openvino", "nncf"))
    with _quiet():
        model = openvino.Core().read_model(str(job.folder / FILES["openvino"]))
        images = [image[None] for image in job.calibration]
        model = nncf.quantize(model, nncf.Dataset(images), subset_size=len(images))
        openvino.save_model(model, str(_place(job, "int8")), compress_to_fp16=False)


def write_pt2(job: Job) -> None:
    """What ``torch.export.load`` reads without resnetlab."""
    with _quiet():
        torch.export.save(job.program, _place(job, "pt2"))


def write_triton(job: Job) -> None:
    """A model repository that Triton and OpenVINO Model Server read."""
    name, preprocessing, classes = job.bundle.name, job.trained.preprocessing, job.bundle.classes
    place = job.folder / "triton" / name
    (place / "1").mkdir(parents=True)
    shutil.copyfile(job.folder / FILES["onnx"], place / "1" / "model.onnx")
    side, channels = preprocessing.side, preprocessing.channels
    atomic_write(
        place / "config.pbtxt",
        f'name: "{name}"\n'
        'platform: "onnxruntime_onnx"\n'
        "max_batch_size: 64\n"
        f'input [{{ name: "pixels" data_type: TYPE_UINT8 dims: [ {side}, {side}, {channels} ] }}]\n'
        f'output [{{ name: "logits" data_type: TYPE_FP32 dims: [ {len(classes)} ] label_filename: "labels.txt" }}]\n'
        "dynamic_batching { max_queue_delay_microseconds: 2000 }\n",
    )
    atomic_write(place / "labels.txt", "".join(f"{' '.join(label.split())}\n" for label in classes))


def write_timm(job: Job) -> None:
    """``config.json`` and ``model.safetensors`` as timm and transformers read them; resnetlab does too."""
    net, preprocessing = job.trained.net, job.trained.preprocessing
    name, count = timm_name(job.trained), len(job.bundle.classes)
    assert name is not None
    vgg, pre = name.startswith("vgg"), name.startswith("resnetv2")
    deep = getattr(net.config, "stem_kind", "") == "deep"
    size = [preprocessing.channels, preprocessing.side, preprocessing.side]
    first = "features.0" if vgg else "stem.conv1" if pre and deep else "stem.conv" if pre else "conv1"
    pretrained = {
        "input_size": size,
        "fixed_input_size": False,
        "interpolation": preprocessing.filter,
        "crop_pct": 1.0,
        "crop_mode": preprocessing.crop,
        "mean": [value / 255 for value in preprocessing.mean_of_pixels],
        "std": [value / 255 for value in preprocessing.std_of_pixels],
        "num_classes": count,
        "pool_size": [7, 7],
        "first_conv": f"{first}.0" if deep and not pre else first,
        "classifier": "head.fc" if vgg or pre else "fc",
    }
    more = {
        "architecture": name,
        "num_classes": count,
        "num_features": net.num_features,
        "global_pool": "avg",
        "label_names": list(job.bundle.classes),
        "pretrained_cfg": pretrained,
    }
    if preprocessing.channels != 3:
        more["model_args"] = {"in_chans": preprocessing.channels}
    write_network(job, "timm", more)


def write_page(job: Job) -> None:
    """One file of HTML that computes the network in a browser, from the ONNX format and the golden images."""
    write_web(seal(job.bundle, job.folder), job.folder)


def write_network(job: Job, dialect: str = "resnetlab", more: dict[str, Any] | None = None) -> None:
    """Weights and configuration of the network, under the names of ``dialect``."""
    tensors = export_weights(job.trained.net, dialect)
    atomic_write(job.folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_config(job.folder, config_to_plain(job.trained.net.config), more or {})


NOT_IN_TIMM = ("plain18", "plain34", "wide_resnet16_4", "wide_resnet16_8", "wide_resnet28_10", "wide_resnet40_4")
"""Networks of fixed depth that timm 1.0.31 has not by that name."""


def require_web(trained: TrainedNetwork) -> None:
    """Raise ``ConfigError`` unless a page can hold the network, and a browser compute it in some seconds."""
    numbers = sum(tensor.numel() for tensor in trained.net.state_dict().values())
    require_page(trained.model, trained.preprocessing.channels, numbers, work_of(trained))


def require_timm(trained: TrainedNetwork) -> None:
    """Raise ``ConfigError`` unless timm has a network that computes the same."""
    if timm_name(trained) is None:
        raise ConfigError(
            f"timm has no network that computes what this {trained.model} does; a program without resnetlab loads it "
            "as --to pt2 (plain torch) or --to onnx"
        )


def work_of(trained: TrainedNetwork) -> int:
    """Multiply-adds of the network for one image."""
    preprocessing = trained.preprocessing
    own = replace(trained.net.config, image_size=preprocessing.side, in_chans=preprocessing.channels)
    return max(1, summarise(own).multiply_adds)


def timm_name(trained: TrainedNetwork) -> str | None:
    """What timm calls a network that computes the same; None where it has none."""
    name = trained.model
    if name not in ROWS or name in NOT_IN_TIMM or not same_function(trained.net.config, ROWS[name].config):
        return None
    try:
        their_names(trained.net, "timm")
    except ConfigError:
        return None
    return name


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format: what writes it, the packages and the extra that this needs, and the formats that it is made of;
    ``of_golden`` are made of the golden images too, and so written after them. ``require`` raises ``ConfigError`` for
    a network that cannot have it."""

    write: Callable[[Job], None]
    require: Callable[[TrainedNetwork], None] = lambda _: None
    packages: tuple[str, ...] = ()
    extra: str = ""
    made_of: tuple[str, ...] = ()
    of_golden: bool = False


_ONNX, _OPENVINO = ("onnx", "onnxscript", "onnxruntime"), ("openvino",)
FORMATS = {
    "onnx": Format(write=write_onnx, packages=_ONNX, extra="export"),
    "openvino": Format(write=write_openvino, packages=_OPENVINO, extra="openvino", made_of=("onnx",)),
    "int8": Format(write=write_int8, packages=(*_OPENVINO, "nncf"), extra="openvino", made_of=("openvino",)),
    "pt2": Format(write=write_pt2),
    "triton": Format(write=write_triton, packages=_ONNX, extra="export", made_of=("onnx",)),
    "timm": Format(write=write_timm, require=require_timm),
    "web": Format(
        write=write_page, require=require_web, packages=_ONNX, extra="export", made_of=("onnx",), of_golden=True
    ),
}
"""In the order in which they are written."""


def with_parts(names: Sequence[str]) -> list[str]:
    """The formats with those that they are made of, in the order of ``FORMATS``. Each one's packages are there.

    Raises ``MissingExtraError`` for those that are not.
    """
    found = set(names)
    for name in reversed(FORMATS):
        if name in found:
            found.update(FORMATS[name].made_of)
    with _quiet():
        for name in found:
            for package in FORMATS[name].packages:
                load_extra(package, f"the format {name}", FORMATS[name].extra)
    return [name for name in FORMATS if name in found]


def _place(job: Job, name: str) -> Path:
    path = job.folder / FILES[name]
    path.parent.mkdir(parents=True)
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what exporters print and warn of from the user: whether they did right is compared afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
