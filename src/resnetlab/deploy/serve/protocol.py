"""The Open Inference Protocol, version 2, over HTTP: what Triton, KServe and OpenVINO Model Server speak, with Triton's
extensions for binary data and for classification. https://github.com/kserve/open-inference-protocol
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from resnetlab.core.errors import DataError, first_line
from resnetlab.data.decode import Pixels
from resnetlab.deploy.bundle import Bundle
from resnetlab.deploy.engines import Logits

INPUT, OUTPUT, VERSION = "pixels", "logits", "1"
JSON_LENGTH = "Inference-Header-Content-Length"
"""The header that says where the JSON of a request or of an answer ends and binary data begin."""


@dataclass(frozen=True, kw_only=True)
class InferRequest:
    """What is asked of the network: ``pixels`` ``(N, side, side, C)``; the answer in ``binary`` or in JSON, as logits
    or, with ``classification``, as so many classes."""

    pixels: Pixels
    id: str | None
    binary: bool
    classification: int


def server_metadata(version: str) -> dict[str, Any]:
    """Who answers, and which extensions of the protocol it knows."""
    extensions = ["binary_tensor_data", "classification", "model_configuration"]
    return {"name": "resnetlab", "version": version, "extensions": extensions}


def model_metadata(bundle: Bundle) -> dict[str, Any]:
    """Input and output of the network; -1 is the size of the batch."""
    inputs = {"name": INPUT, "datatype": "UINT8", "shape": [-1, *_shape(bundle)]}
    outputs = {"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(bundle.classes)]}
    return {
        "name": bundle.name,
        "versions": [VERSION],
        "platform": "resnetlab",
        "inputs": [inputs],
        "outputs": [outputs],
    }


def model_configuration(bundle: Bundle, max_batch: int) -> dict[str, Any]:
    """The same as Triton's configuration, which its clients ask for the largest batch."""
    return {
        "name": bundle.name,
        "platform": "resnetlab",
        "max_batch_size": max_batch,
        "input": [{"name": INPUT, "data_type": "TYPE_UINT8", "dims": list(_shape(bundle))}],
        "output": [{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": [len(bundle.classes)]}],
        "dynamic_batching": {},
    }


def read_request(body: bytes, json_length: str | None, bundle: Bundle, max_batch: int) -> InferRequest:
    """The request in a body, whose JSON ends after ``json_length`` bytes where that header is given.

    Raises ``DataError`` with the reason for whatever is no request to this network.
    """
    end = len(body)
    if json_length is not None:
        if not (json_length.isascii() and json_length.isdigit() and len(json_length) < 12 and int(json_length) <= end):
            raise DataError(f"{JSON_LENGTH}: {json_length[:20]!r} is no length within the {end} bytes of the body")
        end = int(json_length)
    try:
        head = json.loads(body[:end])
    except (ValueError, RecursionError) as error:
        raise DataError(f"the JSON of the request cannot be read ({first_line(error)})") from error
    head = _typed(head, dict, "the request")
    inputs = _typed(head.get("inputs"), list, "inputs")
    if len(inputs) != 1 or not isinstance(inputs[0], dict) or inputs[0].get("name") != INPUT:
        raise DataError(f"inputs must be one, named {INPUT!r}")
    outputs = _typed(head.get("outputs", []), list, "outputs")
    if outputs and (len(outputs) != 1 or not isinstance(outputs[0], dict) or outputs[0].get("name") != OUTPUT):
        raise DataError(f"outputs must be one, named {OUTPUT!r}, or be left out")
    wishes = _parameters(head)
    wanted = _parameters(outputs[0]) if outputs else {}
    binary = wanted.get("binary_data", wishes.get("binary_data_output", False))
    classification = wanted.get("classification", 0)
    if type(classification) is not int or classification < 0:
        raise DataError("classification must be a number of classes")
    name = head.get("id")
    return InferRequest(
        pixels=_pixels(inputs[0], body[end:], _shape(bundle), max_batch),
        id=None if name is None else _typed(name, str, "id"),
        binary=_typed(binary, bool, "binary_data"),
        classification=classification,
    )


def write_answer(request: InferRequest, logits: Logits, bundle: Bundle) -> tuple[bytes, int | None]:
    """The body of the answer and, where binary data follow its JSON, the length of that."""
    output: dict[str, Any] = {"name": OUTPUT}
    if request.classification:
        rows = [_classified(row, request.classification, bundle.classes) for row in logits]
        texts = [text for row in rows for text in row]
        output |= {"datatype": "BYTES", "shape": [len(rows), len(rows[0])]}
        data = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in texts)
        listed: list[Any] = texts
    else:
        output |= {"datatype": "FP32", "shape": list(logits.shape)}
        data = logits.astype("<f4").tobytes()
        listed = [] if request.binary else logits.ravel().tolist()
    output |= {"parameters": {"binary_data_size": len(data)}} if request.binary else {"data": listed}
    answer = {"model_name": bundle.name, "model_version": VERSION, "outputs": [output]}
    if request.id is not None:
        answer["id"] = request.id
    head = json.dumps(answer).encode()
    return (head + data, len(head)) if request.binary else (head, None)


def _shape(bundle: Bundle) -> tuple[int, int, int]:
    return (bundle.preprocessing.side, bundle.preprocessing.side, bundle.preprocessing.channels)


def _classified(row: Logits, most: int, classes: Sequence[str]) -> list[str]:
    """Triton's "value:index:label" of the largest logits, of equal ones the lower class first."""
    return [f"{row[k]:f}:{k}:{classes[k]}" for k in np.argsort(-row, kind="stable")[:most]]


def _pixels(tensor: dict[str, Any], binary: bytes, image: tuple[int, ...], max_batch: int) -> Pixels:
    wanted = f"[N, {', '.join(map(str, image))}] with N from 1 to {max_batch}"
    shape = _typed(tensor.get("shape"), list, "shape")
    if any(type(n) is not int for n in shape) or tuple(shape[1:]) != image or not 1 <= shape[0] <= max_batch:
        raise DataError(f"the shape of {INPUT} must be {wanted}")
    if tensor.get("datatype") != "UINT8":
        raise DataError(f"the datatype of {INPUT} must be UINT8: 0 is black, 255 white")
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        values = _listed(tensor.get("data"), prod(shape))
        if binary:
            raise DataError(f"{len(binary)} bytes follow the JSON, which names no binary_data_size")
    elif size != len(binary) or size != prod(shape):
        raise DataError(f"binary_data_size must be {prod(shape)}, and so many bytes must follow the JSON")
    else:
        values = np.frombuffer(binary, np.uint8)
    return values.reshape(shape)


def _listed(data: Any, size: int) -> Pixels:
    """A list of numbers, flat or nested, as uint8."""
    try:
        values = np.asarray(_typed(data, list, "data"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"the data of {INPUT} are no array ({first_line(error)})") from error
    if values.dtype.kind not in "iu" or values.size != size or values.min() < 0 or values.max() > 255:
        raise DataError(f"the data of {INPUT} must be {size} whole numbers from 0 to 255")
    return values.astype(np.uint8)


def _parameters(owner: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _typed(owner.get("parameters", {}), dict, "parameters")
    if "shared_memory_region" in found:
        raise DataError("shared memory is not read here; send the data")
    return found


def _typed(value: Any, kind: type, name: str) -> Any:
    if type(value) is not kind:
        raise DataError(f"{name} must be {'an object' if kind is dict else f'a {kind.__name__}'} of JSON")
    return value
