"""A network as a list of operations that the script of a page computes (``network.js``). No torch is loaded here."""

from base64 import b64encode
from collections.abc import Mapping
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetlab.core.errors import ConfigError, load_extra
from resnetlab.data.decode import Pixels
from resnetlab.deploy.engines import Logits

OPERATIONS: dict[str, Mapping[str, Any]] = {
    "Add": {},
    "AveragePool": {
        "strides": None,
        "pads": [0, 0, 0, 0],
        "kernel_shape": None,
        "ceil_mode": 0,
        "count_include_pad": 0,
    },
    "BatchNormalization": {"epsilon": 1e-5},
    "Cast": {},
    "Conv": {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1},
    "Div": {},
    "Elu": {"alpha": 1.0},
    "Erf": {},
    "Flatten": {"axis": 1},
    "Gelu": {},
    "Gemm": {"transB": 0},
    "GlobalAveragePool": {},
    "Identity": {},
    "InstanceNormalization": {"epsilon": 1e-5},
    "LeakyRelu": {"alpha": 0.01},
    "MatMul": {},
    "MaxPool": {"strides": None, "pads": [0, 0, 0, 0], "kernel_shape": None, "ceil_mode": 0},
    "Mul": {},
    "Pad": {},
    "ReduceMean": {"keepdims": 1},
    "Relu": {},
    "Reshape": {"allowzero": 0},
    "Sigmoid": {},
    "Slice": {},
    "Squeeze": {},
    "Sub": {},
    "Tanh": {},
    "Transpose": {"perm": None},
}
"""The operations of ONNX that the script knows, with the attributes that it reads and what they are if not given. A
test holds them against those of the script."""
FIXED: dict[str, Any] = {
    "alpha": 1.0,
    "approximate": b"none",
    "auto_pad": b"NOTSET",
    "beta": 1.0,
    "dilations": [1, 1],
    "mode": b"constant",
    "noop_with_empty_axes": 0,
    "storage_order": 0,
    "training_mode": 0,
    "transA": 0,
}
"""Attributes that the script takes to be this, where it does not read them."""
UNREAD = ("to", "saturate", "momentum", "kernel_shape", "round_mode")
LARGE = 256
"""Arrays of weights of at least so many numbers may be half precision; means, scales and biases stay single."""


class Program:
    """The graph of an exported network for one image, its constants folded by ONNX Runtime.

    Raises ``ConfigError`` for an operation that the script does not know.
    """

    def __init__(self, path: Path) -> None:
        self._onnx = load_extra("onnx", "the format web", "export")
        self._runtime = load_extra("onnxruntime", "the format web", "export")
        with TemporaryDirectory() as folder:
            options = self._options()
            options.graph_optimization_level = self._runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.add_free_dimension_override_by_name("batch", 1)
            options.optimized_model_filepath = str(Path(folder) / "one.onnx")
            self._session(str(path), options)
            self._model = self._onnx.load(options.optimized_model_filepath)
        self._weights = self._constants()
        self.operations = [self._operation(node) for node in self._model.graph.node]

    @property
    def numbers(self) -> int:
        """In all weights."""
        return sum(values.size for values in self._weights.values())

    @property
    def multiply_adds(self) -> int:
        """Of convolutions and matrices, for one image."""
        graph = self._onnx.shape_inference.infer_shapes(self._model).graph
        shapes = {
            value.name: [place.dim_value for place in value.type.tensor_type.shape.dim]
            for value in (*graph.value_info, *graph.output)
        }
        return sum(
            prod(shapes[node["output"]]) * self._weights[node["inputs"][1]].size // self._outputs(node)
            for node in self.operations
            if node["op"] in ("Conv", "Gemm", "MatMul")
        )

    def plain(self, *, half: bool) -> dict[str, Any]:
        """What ``readProgram`` of the script takes, its names shortened to numbers."""
        names: dict[str, int] = {}
        constants, data = [], bytearray()

        def number(name: str) -> int:
            return names.setdefault(name, len(names))

        for name, values in self._weights.items():
            entry: dict[str, Any] = {"name": number(name), "shape": list(values.shape)}
            if values.dtype != np.float32:
                constants.append(entry | {"values": values.ravel().tolist()})
                continue
            small = half and _may_be_half(values)
            data += bytes(-len(data) % 4)
            constants.append(entry | {"at": len(data)} | ({"half": True} if small else {}))
            data += np.ascontiguousarray(values, "<f2" if small else "<f4").tobytes()
        graph = self._model.graph
        operations = [
            {
                **node,
                "inputs": [number(name) if name else None for name in node["inputs"]],
                "output": number(node["output"]),
            }
            for node in self.operations
        ]
        return {
            "input": number(graph.input[0].name),
            "shape": [place.dim_value for place in graph.input[0].type.tensor_type.shape.dim],
            "output": number(graph.output[0].name),
            "operations": operations,
            "constants": constants,
            "data": b64encode(data).decode(),
        }

    def half_logits(self, pixels: Pixels) -> Logits:
        """Logits ``(N, K)`` that ONNX Runtime computes with the large weights in half precision."""
        model = self._onnx.ModelProto()
        model.CopyFrom(self._model)
        for held in model.graph.initializer:
            values = self._onnx.numpy_helper.to_array(held)
            if values.dtype == np.float32 and _may_be_half(values):
                rounded = values.astype(np.float16).astype(np.float32)
                held.CopyFrom(self._onnx.numpy_helper.from_array(rounded, held.name))
        session = self._session(model.SerializeToString(), self._options())
        return np.concatenate([session.run(None, {"pixels": image[None]})[0] for image in pixels])

    def _options(self) -> Any:
        options = self._runtime.SessionOptions()
        options.log_severity_level = 3
        return options

    def _session(self, model: "str | bytes", options: Any) -> Any:
        return self._runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _constants(self) -> dict[str, NDArray[Any]]:
        """The weights and the small arrays of whole numbers, by name."""
        graph, to_array = self._model.graph, self._onnx.numpy_helper.to_array
        return {held.name: to_array(held) for held in graph.initializer}

    def _outputs(self, node: dict[str, Any]) -> int:
        """How many sums an operation makes of one weight array: its filters, or its columns."""
        shape = self._weights[node["inputs"][1]].shape
        if node["op"] == "Conv":
            return int(shape[0])
        return int(shape[0] if node["given"].get("transB") else shape[1])

    def _operation(self, node: Any) -> dict[str, Any]:
        given = {held.name: self._onnx.helper.get_attribute_value(held) for held in node.attribute}
        read = OPERATIONS.get(node.op_type)
        odd = read is not None and next(
            (
                name
                for name, value in given.items()
                if name not in read and name not in UNREAD and FIXED.get(name, value) != value
            ),
            None,
        )
        if read is None or odd or node.domain or len([name for name in node.output if name]) != 1:
            what = f"{node.op_type} with {odd}={given[odd]!r}" if odd else node.op_type
            raise ConfigError(
                f"the page cannot compute {what}, which this network has; serve the bundle instead (resnetlab serve), "
                "or export it to another format"
            )
        return {
            "op": node.op_type,
            "inputs": list(node.input),
            "output": node.output[0],
            "given": {name: given.get(name, value) for name, value in read.items()},
        }


def _may_be_half(values: NDArray[Any]) -> bool:
    return values.size >= LARGE and values.ndim >= 2
