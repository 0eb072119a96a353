"""``network.js`` beside ONNX Runtime: every operation, and whole networks."""

import json

import numpy as np
import pytest

from resnetlab.core.errors import ConfigError
from resnetlab.core.randomness import generator
from resnetlab.deploy.web.program import OPERATIONS, Program

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
SHAPE = (1, 7, 7, 6)
NCHW = {"perm": [0, 3, 1, 2]}
draw = generator(0, "operations")


def normal(*shape: int) -> np.ndarray:
    return draw.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


MAP, ROW = normal(6, 1, 1), normal(1, 6, 7, 7)
CASES = {
    "Add": [("Add", {}, [MAP]), ("Add", {}, [ROW])],
    "AveragePool": [
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, []),
        ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}, []),
    ],
    "BatchNormalization": [
        ("BatchNormalization", {"epsilon": 1e-3}, [normal(6), normal(6), normal(6), normal(6) ** 2])
    ],
    "Conv": [
        ("Conv", {"group": 2, "dilations": [2, 1], "pads": [2, 1, 2, 1]}, [normal(10, 3, 3, 3), normal(10)]),
        ("Conv", {"pads": [1, 1, 1, 1], "strides": [1, 2]}, [normal(5, 10, 3, 3), normal(5)]),
        ("Conv", {"pads": [0, 1, 2, 0], "strides": [2, 1]}, [normal(8, 5, 2, 3)]),
        ("Conv", {"group": 8}, [normal(8, 1, 1, 1)]),
    ],
    "Div": [("Div", {}, [np.float32([3.0])])],
    "Elu": [("Elu", {"alpha": 0.5}, [])],
    "Erf": [("Erf", {}, [])],
    "Flatten": [("Flatten", {}, [])],
    "Gelu": [("Gelu", {}, [])],
    "Gemm": [("Flatten", {}, []), ("Gemm", {"transB": 1}, [normal(9, 294), normal(9)]), ("Gemm", {}, [normal(9, 4)])],
    "GlobalAveragePool": [("GlobalAveragePool", {}, [])],
    "Identity": [("Identity", {}, [])],
    "InstanceNormalization": [("InstanceNormalization", {"epsilon": 1e-3}, [normal(6), normal(6)])],
    "LeakyRelu": [("LeakyRelu", {"alpha": 0.2}, [])],
    "MatMul": [("Flatten", {}, []), ("MatMul", {}, [normal(294, 5)])],
    "MaxPool": [
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, []),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [4, 4], "ceil_mode": 1}, []),
    ],
    "Mul": [("Mul", {}, [MAP])],
    "Pad": [("Pad", {}, [ints(0, 1, 0, 2, 0, 3, 1, 0), np.float32(0.5)])],
    "ReduceMean": [("ReduceMean", {}, [ints(1, -1)]), ("ReduceMean", {"keepdims": 0}, [ints(2)])],
    "Relu": [("Relu", {}, [])],
    "Reshape": [("Reshape", {}, [ints(0, 2, -1)])],
    "Sigmoid": [("Sigmoid", {}, [])],
    "Slice": [
        ("Slice", {}, [ints(0, 1), ints(2**62, -1), ints(2, 3), ints(2, 1)]),
        ("Slice", {}, [ints(-5), ints(100), ints(1)]),
    ],
    "Squeeze": [("GlobalAveragePool", {}, []), ("Squeeze", {}, [ints(2, -1)])],
    "Sub": [("Sub", {}, [MAP])],
    "Tanh": [("Tanh", {}, [])],
    "Transpose": [("Transpose", {"perm": [0, 2, 3, 1]}, [])],
    "Cast": [],
}
"""By operation what is computed, one after the other, of a map (1, 6, 7, 7): name, attributes, further inputs."""


def write_model(path, steps):
    """Pixels to a map of numbers from -4 to 4, then ``steps``, then the logits."""
    nodes = [
        onnx.helper.make_node("Transpose", ["pixels"], ["turned"], **NCHW),
        onnx.helper.make_node("Cast", ["turned"], ["cast"], to=1),
        onnx.helper.make_node("Sub", ["cast", "half"], ["zeroed"]),
        onnx.helper.make_node("Div", ["zeroed", "scale"], ["x0"]),
    ]
    held = {"half": np.float32(128), "scale": np.float32(32)}
    for number, (op, given, more) in enumerate(steps):
        names = [f"w{number}.{k}" for k in range(len(more))]
        held |= dict(zip(names, more, strict=True))
        nodes.append(onnx.helper.make_node(op, [f"x{number}", *names], [f"x{number + 1}"], **given))
    last = nodes[-1].output[0]
    nodes.append(onnx.helper.make_node("Identity", [last], ["logits"]))
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "case",
        [value("pixels", onnx.TensorProto.UINT8, ["batch", *SHAPE[1:]])],
        [value("logits", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)


def expected(path, pixels):
    return runtime.InferenceSession(str(path)).run(None, {"pixels": pixels})[0].ravel()


def test_every_operation_computes_what_onnx_runtime_does(compute, tmp_path):
    pixels = draw.integers(0, 256, SHAPE, np.uint8)
    networks = []
    for name, steps in CASES.items():
        write_model(tmp_path / f"{name}.onnx", steps)
        plain = Program(tmp_path / f"{name}.onnx").plain(half=False)
        networks.append({"program": plain, "pixels": pixels.ravel().tolist()})
    answer = compute(networks=networks)
    assert set(answer["operations"]) == set(OPERATIONS) == set(CASES)
    for name, found in zip(CASES, answer["logits"], strict=True):
        kept = expected(tmp_path / f"{name}.onnx", pixels)
        assert np.shape(found["logits"]) == kept.shape, name
        assert np.abs(np.float32(found["logits"]) - kept).max() < 2e-6 * max(1, np.abs(kept).max()), name


def test_half_precision_is_kept_for_large_weights_alone_and_known_beforehand(compute, tmp_path):
    pixels = draw.integers(0, 256, (3, *SHAPE[1:]), np.uint8)
    path = tmp_path / "half.onnx"
    write_model(path, [("Conv", {}, [normal(16, 6, 3, 3), normal(16)]), ("GlobalAveragePool", {}, [])])
    program = Program(path)
    plain = program.plain(half=True)
    assert [entry.get("half", False) for entry in plain["constants"]].count(True) == 1
    assert len(json.dumps(plain)) < 0.6 * len(json.dumps(program.plain(half=False)))
    found = compute(networks=[{"program": plain, "pixels": image.ravel().tolist()} for image in pixels])["logits"]
    rounded = program.half_logits(pixels).reshape(3, -1)
    single = np.stack([expected(path, image[None]) for image in pixels])
    assert np.abs(rounded - [each["logits"] for each in found]).max() < 1e-5
    assert 1e-5 < np.abs(rounded - single).max() < 1e-2


def test_multiply_adds_are_counted(tmp_path):
    steps = [("Conv", {"group": 2}, [normal(8, 3, 3, 3)]), ("Flatten", {}, []), ("Gemm", {}, [normal(200, 4)])]
    write_model(tmp_path / "n.onnx", steps)
    assert Program(tmp_path / "n.onnx").multiply_adds == 25 * 8 * 27 + 200 * 4


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (("Softmax", {}, []), "Softmax"),
        (("Pad", {"mode": "reflect"}, [ints(0, 0, 1, 1, 0, 0, 1, 1)]), "Pad with mode"),
        (("Gemm", {"alpha": 2.0}, [normal(294, 4)]), "Gemm with alpha"),
    ],
)
def test_what_the_script_does_not_know_is_refused_by_name(tmp_path, step, said):
    write_model(tmp_path / "x.onnx", [("Flatten", {}, []), step] if step[0] == "Gemm" else [step])
    with pytest.raises(ConfigError, match=f"cannot compute {said}"):
        Program(tmp_path / "x.onnx")


ZOO = [
    *("cifar_plain20", "cifar_preact_resnet20", "mlp_resnet8", "resnet18d", "resnet50_gn", "resnext50_32x4d"),
    *("resnetv2_18", "seresnet18", "wide_resnet16_4"),
]
"""One network of each kind of block, stem, shortcut and norm."""
LARGE = {"resnet50_gn", "resnext50_32x4d"}
"""Networks that take a minute each."""


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=pytest.mark.long if name in LARGE else pytest.mark.slow) for name in ZOO]
)
def test_networks_of_the_zoo_compute_what_torch_does(compute, tmp_path, model):
    from resnetlab.deploy.bundle import Bundle
    from resnetlab.deploy.engines import FILES
    from resnetlab.deploy.formats import Job, write_onnx
    from tests.deploy.web.bundles import CLASSES, made_network

    trained = made_network(tmp_path, model, 32, 3)
    bundle = Bundle(name="zoo", model=model, classes=CLASSES, preprocessing=trained.preprocessing)
    write_onnx(Job(trained=trained, bundle=bundle, folder=tmp_path))
    program = Program(tmp_path / FILES["onnx"])
    pixels = draw.integers(0, 256, (1, 32, 32, 3), np.uint8)
    (found,) = compute(networks=[{"program": program.plain(half=False), "pixels": pixels.ravel().tolist()}])["logits"]
    expected = trained.logits_of_pixels(pixels)[0]
    assert np.abs(np.float32(found["logits"]) - expected).max() < 1e-5 * np.abs(expected).max()
