"""The network of a bundle behind LitServe, for ``benchmarks/serve.py``: ``rival_litserve.py BUNDLE PORT``."""

import base64
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np

from resnetlab.deploy.bundle import read_bundle
from resnetlab.deploy.engines import open_bundle
from resnetlab.deploy.preprocessing import predictions


class Api(litserve.LitAPI):
    """``{"image": BASE64}`` in, the five most probable classes out."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        folder = Path(sys.argv[1])
        self.predictor = open_bundle(read_bundle(folder), folder, "onnx", 1)

    def decode_request(self, request: dict[str, str]) -> Any:
        return self.predictor.preprocessing.pixels(base64.b64decode(request["image"]))

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, pixels: Any) -> Any:
        return self.predictor.logits(pixels)

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def encode_response(self, logits: Any) -> dict[str, Any]:
        (found,) = predictions(logits[None], self.predictor.classes, 5)
        return {"predictions": list(zip(found.classes, found.probabilities, strict=True))}


if __name__ == "__main__":
    server = litserve.LitServer(Api(max_batch_size=8, batch_timeout=0.002), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="error", generate_client_file=False)
