"""What a server answers, as OpenAPI 3.1."""

from typing import Any

from resnetlab.deploy.bundle import Bundle
from resnetlab.deploy.serve.protocol import model_metadata

ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def openapi(bundle: Bundle, version: str) -> dict[str, Any]:
    """The description of a server of ``bundle``."""
    model = f"/v2/models/{bundle.name}"
    top = {
        "name": "top",
        "in": "query",
        "description": "So many classes, the most probable first.",
        "schema": {"type": "integer", "minimum": 1, "default": 5},
    }
    image = {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
    asked = {"required": True, "content": {"application/json": {"schema": _infer_request(bundle)}}}
    paths = {
        "/predict": {"post": _operation("Classes of the image that is the body", _prediction(bundle), image, [top])},
        f"{model}/infer": {"post": _operation("Logits of pixels", {"type": "object"}, asked)},
        model: {"get": _operation("Input and output of the network", {"type": "object"})},
        f"{model}/ready": {"get": _operation("Whether the golden images passed", {"type": "object"})},
        "/v2": {"get": _operation("Who answers", {"type": "object"})},
        "/v2/health/live": {"get": _operation("Whether the process answers", {"type": "object"})},
        "/v2/health/ready": {"get": _operation("Whether the golden images passed", {"type": "object"})},
        "/healthz": {"get": _operation("Whether the process answers", {"type": "object"})},
        "/readyz": {"get": _operation("Whether the golden images passed", {"type": "object"})},
        "/metrics": {"get": _operation("The counts, for Prometheus", {"type": "string"}, kind="text/plain")},
        "/": {"get": _operation("A page to drop images on", {"type": "string"}, kind="text/html")},
    }
    return {"openapi": "3.1.0", "info": {"title": f"resnetlab: {bundle.name}", "version": version}, "paths": paths}


def _operation(
    summary: str,
    schema: dict[str, Any],
    body: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
    kind: str = "application/json",
) -> dict[str, Any]:
    answers: dict[str, Any] = {"200": {"description": "The answer", "content": {kind: {"schema": schema}}}}
    answers["default"] = {"description": "What is wrong", "content": {"application/json": {"schema": ERROR}}}
    more: dict[str, Any] = {"requestBody": body} if body else {}
    return {"summary": summary, "parameters": parameters or [], **more, "responses": answers}


def _prediction(bundle: Bundle) -> dict[str, Any]:
    share = {"type": "number", "minimum": 0, "maximum": 1}
    row = {
        "type": "object",
        "properties": {"class": {"type": "string", "enum": list(bundle.classes)}, "probability": share},
    }
    rows = {"type": "array", "items": row}
    return {"type": "object", "properties": {"model": {"const": bundle.name}, "predictions": rows}}


def _infer_request(bundle: Bundle) -> dict[str, Any]:
    (pixels,) = model_metadata(bundle)["inputs"]
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"const": pixels["name"]},
            "datatype": {"const": pixels["datatype"]},
            "shape": {"type": "array", "items": {"type": "integer"}, "description": f"{pixels['shape']}, -1 the batch"},
            "data": {"type": "array", "description": "Flat or nested, 0 black to 255 white"},
        },
    }
    inputs = {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1}
    return {"type": "object", "required": ["inputs"], "properties": {"id": {"type": "string"}, "inputs": inputs}}
