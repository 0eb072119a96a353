"""Requests and answers of the Open Inference Protocol, written out by hand."""

import json
import struct

import numpy as np
import pytest

from resnetlab.core.errors import DataError
from resnetlab.deploy.bundle import Bundle
from resnetlab.deploy.preprocessing import Preprocessing
from resnetlab.deploy.serve.protocol import model_configuration, model_metadata, read_request, write_answer

BUNDLE = Bundle(
    name="tiny",
    model="by hand",
    classes=("ant", "bee", "cät"),
    preprocessing=Preprocessing(side=2, channels=1, white=255, mean=(0.0,), std=(1.0,)),
)
PIXELS = {"name": "pixels", "shape": [1, 2, 2, 1], "datatype": "UINT8", "data": [1, 2, 3, 255]}
LOGITS = np.asarray([[0.5, -1.0, 2.0], [3.0, 3.0, 0.0]], np.float32)


def asked(head, binary: bytes = b"", length: str | None = None):
    body = head if isinstance(head, bytes) else json.dumps(head).encode()
    return read_request(body + binary, length or (str(len(body)) if binary else None), BUNDLE, 8)


def with_pixels(**changes):
    return {"inputs": [{**PIXELS, **changes}]}


def in_binary(size: int, **changes):
    pixels = {key: value for key, value in PIXELS.items() if key != "data"}
    return {"inputs": [{**pixels, "parameters": {"binary_data_size": size}, **changes}]}


@pytest.mark.parametrize("data", [[1, 2, 3, 255], [[[[1], [2]], [[3], [255]]]], [[1, 2], [3, 255]]])
def test_pixels_in_json_are_flat_or_nested(data):
    found = asked(with_pixels(data=data))
    assert found.pixels.tolist() == [[[[1], [2]], [[3], [255]]]]
    assert (found.pixels.dtype, found.binary, found.classification, found.id) == (np.uint8, False, 0, None)


def test_pixels_in_binary_follow_the_json():
    found = asked({**in_binary(8, shape=[2, 2, 2, 1]), "id": "7"}, bytes(range(8)))
    assert found.pixels.tolist() == np.arange(8).reshape(2, 2, 2, 1).tolist()
    assert found.id == "7"


@pytest.mark.parametrize(
    ("head", "binary"),
    [
        ({"parameters": {"binary_data_output": True}}, True),
        ({"outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}, True),
        ({"parameters": {"binary_data_output": True}, "outputs": [{"name": "logits", "parameters": {}}]}, True),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "logits", "parameters": {"binary_data": False}}],
            },
            False,
        ),
        ({"outputs": []}, False),
    ],
)
def test_what_is_said_of_the_output_goes_before_what_is_said_of_all(head, binary):
    assert asked({**with_pixels(), **head}).binary is binary


def answered(logits=LOGITS, **head):
    return write_answer(asked({**with_pixels(), **head}), logits, BUNDLE)


def test_answer_in_json():
    content, length = answered(id="a")
    assert length is None
    assert json.loads(content) == {
        "model_name": "tiny",
        "model_version": "1",
        "id": "a",
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [2, 3], "data": [0.5, -1.0, 2.0, 3.0, 3.0, 0.0]}],
    }


def test_answer_in_binary():
    content, length = answered(parameters={"binary_data_output": True})
    (output,) = json.loads(content[:length])["outputs"]
    assert output == {
        "name": "logits",
        "datatype": "FP32",
        "shape": [2, 3],
        "parameters": {"binary_data_size": 24},
    }
    assert struct.unpack("<6f", content[length:]) == (0.5, -1.0, 2.0, 3.0, 3.0, 0.0)


def test_answer_as_classes_in_json_and_in_binary():
    outputs = [{"name": "logits", "parameters": {"classification": 2}}]
    (output,) = json.loads(answered(outputs=outputs)[0])["outputs"]
    told = ["2.000000:2:cät", "0.500000:0:ant", "3.000000:0:ant", "3.000000:1:bee"]
    assert output == {"name": "logits", "datatype": "BYTES", "shape": [2, 2], "data": told}
    outputs[0]["parameters"]["binary_data"] = True
    content, length = answered(outputs=outputs)
    # Each text has its length before it: four bytes, little-endian.
    texts = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in told)
    assert content[length:] == texts
    assert json.loads(content[:length])["outputs"][0]["parameters"] == {"binary_data_size": len(texts)}


def test_more_classes_than_there_are_is_all_of_them():
    (output,) = json.loads(answered(outputs=[{"name": "logits", "parameters": {"classification": 99}}])[0])["outputs"]
    assert output["shape"] == [2, 3]


DEEP = b'{"inputs": ' + b"[" * 100_000
WRONG = {
    "no JSON": (b"", b""),
    "half of it": (b'{"inputs": [', b""),
    "no text": (b"\xff\xfe\x00", b""),
    "nested without end": (DEEP, b""),
    "a number with many digits": (b'{"inputs": ' + b"9" * 10_000 + b"}", b""),
    "no object": ([1], b""),
    "no inputs": ({}, b""),
    "inputs are no list": ({"inputs": {"name": "pixels"}}, b""),
    "two inputs": ({"inputs": [PIXELS, PIXELS]}, b""),
    "another name": (with_pixels(name="input_1"), b""),
    "another side": (with_pixels(shape=[1, 3, 2, 1]), b""),
    "no batch": (with_pixels(shape=[2, 2, 1]), b""),
    "an empty shape": (with_pixels(shape=[]), b""),
    "an empty batch": (with_pixels(shape=[0, 2, 2, 1], data=[]), b""),
    "a negative batch": (with_pixels(shape=[-1, 2, 2, 1]), b""),
    "a batch above the most": (with_pixels(shape=[9, 2, 2, 1], data=[0] * 36), b""),
    "a batch beyond all bounds": (in_binary(4, shape=[2**70, 2, 2, 1]), b"1234"),
    "a shape of fractions": (with_pixels(shape=[1, 2.0, 2, 1]), b""),
    "a shape of truths": (with_pixels(shape=[True, 2, 2, 1]), b""),
    "another type": (with_pixels(datatype="FP32"), b""),
    "no data": (in_binary(4) | {"inputs": [{k: v for k, v in PIXELS.items() if k != "data"}]}, b""),
    "too few data": (with_pixels(data=[1, 2, 3]), b""),
    "ragged data": (with_pixels(data=[[1, 2], [3]]), b""),
    "fractions": (with_pixels(data=[1, 2, 3, 0.5]), b""),
    "texts": (with_pixels(data=["1", "2", "3", "4"]), b""),
    "truths": (with_pixels(data=[True, False, True, False]), b""),
    "above white": (with_pixels(data=[1, 2, 3, 256]), b""),
    "below black": (with_pixels(data=[1, 2, 3, -1]), b""),
    "a number above all types": (with_pixels(data=[1, 2, 3, 2**80]), b""),
    "data nested too deep": (with_pixels(data=json.loads("[" * 80 + "1" + "]" * 80)), b""),
    "too few bytes": (in_binary(4), b"123"),
    "too many bytes": (in_binary(4), b"12345"),
    "another size than the shape's": (in_binary(5), b"12345"),
    "bytes that nobody named": (with_pixels(), b"1234"),
    "shared memory": (in_binary(4, parameters={"shared_memory_region": "a", "shared_memory_byte_size": 4}), b""),
    "parameters are no object": (with_pixels(parameters=[]), b""),
    "another output": ({**with_pixels(), "outputs": [{"name": "probabilities"}]}, b""),
    "two outputs": ({**with_pixels(), "outputs": [{"name": "logits"}] * 2}, b""),
    "an output that is a text": ({**with_pixels(), "outputs": ["logits"]}, b""),
    "half a class": ({**with_pixels(), "outputs": [{"name": "logits", "parameters": {"classification": 0.5}}]}, b""),
    "less than no class": (
        {**with_pixels(), "outputs": [{"name": "logits", "parameters": {"classification": -1}}]},
        b"",
    ),
    "a binary that is neither": ({**with_pixels(), "parameters": {"binary_data_output": "yes"}}, b""),
    "an id that is a number": ({**with_pixels(), "id": 7}, b""),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_request_is_refused_with_a_reason(name):
    head, binary = WRONG[name]
    with pytest.raises(DataError) as refused:
        asked(head, binary)
    assert 10 < len(str(refused.value)) < 400


@pytest.mark.parametrize("length", ["-1", "x", "", "1e3", "99999999", "٣", "0x10", "9" * 5000])
def test_length_that_is_none_within_the_body_is_refused(length):
    with pytest.raises(DataError):
        read_request(json.dumps(with_pixels()).encode(), length, BUNDLE, 8)


def test_metadata_and_configuration_say_the_same():
    metadata, configuration = model_metadata(BUNDLE), model_configuration(BUNDLE, 8)
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 2, 2, 1]}]
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
    assert configuration["max_batch_size"] == 8
    for side, part in (("inputs", "input"), ("outputs", "output")):
        for told, configured in zip(metadata[side], configuration[part], strict=True):
            assert told["name"] == configured["name"]
            assert told["shape"] == [-1, *configured["dims"]]
            assert f"TYPE_{told['datatype']}" == configured["data_type"]
