"""Triton's own client against a server of ours, unchanged."""

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from tests.deploy.bundles import CLASSES, SIDE, linear_bundle, logits_of
from tests.deploy.serve.servers import serving

PIXELS = np.random.default_rng(3).integers(0, 256, (5, SIDE, SIDE, 1), np.uint8)


@pytest.fixture(scope="module")
def triton() -> ModuleType:
    return pytest.importorskip("tritonclient.http", reason="make test-reference sets it up", exc_type=ImportError)


@pytest.fixture(scope="module")
def client(triton, tmp_path_factory) -> Iterator[object]:
    with serving(linear_bundle(tmp_path_factory.mktemp("bundles") / "insects")) as server:
        client = triton.InferenceServerClient(f"127.0.0.1:{server.port}")
        yield client
        client.close()


def pixels(triton, binary: bool):
    tensor = triton.InferInput("pixels", list(PIXELS.shape), "UINT8")
    tensor.set_data_from_numpy(PIXELS, binary_data=binary)
    return [tensor]


def test_server_and_model_are_live_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("insects")
    assert client.is_model_ready("insects", "1")
    assert not client.is_model_ready("other")


def test_metadata_and_configuration(client):
    assert client.get_server_metadata()["name"] == "resnetlab"
    metadata = client.get_model_metadata("insects")
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 1]}]
    assert client.get_model_config("insects")["max_batch_size"] == 8


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False, None])
def test_logits_in_json_and_in_binary(triton, client, binary_input, binary_output):
    outputs = None if binary_output is None else [triton.InferRequestedOutput("logits", binary_data=binary_output)]
    found = client.infer("insects", pixels(triton, binary_input), outputs=outputs, request_id="7")
    assert found.get_response()["id"] == "7"
    assert np.allclose(found.as_numpy("logits"), logits_of(PIXELS), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("binary", [True, False])
def test_classes(triton, client, binary):
    outputs = [triton.InferRequestedOutput("logits", binary_data=binary, class_count=2)]
    rows = client.infer("insects", pixels(triton, True), outputs=outputs).as_numpy("logits")
    assert rows.shape == (5, 2)
    for row, logits in zip(rows, logits_of(PIXELS), strict=True):
        words = [text.decode() if isinstance(text, bytes) else text for text in row]
        best = np.argsort(-logits)[:2]
        assert [text.split(":")[1:] for text in words] == [[str(k), CLASSES[k]] for k in best]


def test_asynchronous_calls(triton, client):
    calls = [client.async_infer("insects", pixels(triton, True)) for _ in range(4)]
    for call in calls:
        assert np.allclose(call.get_result().as_numpy("logits"), logits_of(PIXELS), rtol=1e-5, atol=1e-4)


def test_errors_are_told_in_the_servers_words(triton, client):
    tensor = triton.InferInput("pixels", [1, 3, 3, 1], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 3, 3, 1), np.uint8))
    with pytest.raises(triton.InferenceServerException, match=r"shape of pixels must be \[N, 8, 8, 1\]"):
        client.infer("insects", [tensor])
