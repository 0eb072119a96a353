"""Requests to a server that nobody sends on purpose: bodies damaged at random."""

import copy
import json
import random
from typing import Any

from tests.deploy.bundles import SIDE
from tests.deploy.serve.servers import image

INFER = "/v2/models/insects/infer"
LENGTH = "Inference-Header-Content-Length"
ODD: list[Any] = [None, True, 0, -1, 2**70, 1e308, "", "pixels", "\x00", [], {}, [[]], [None], {"a": 1}, [1, 2, 3], 0.5]


def damaged(draw: random.Random) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body of a request of which something is wrong, most often."""
    kind = draw.choice(("image", "json", "binary"))
    if kind == "image":
        content = image(draw.randrange(99), draw.choice(("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")))
        return "/predict", {}, _damaged_bytes(content, draw)
    tensor: dict[str, Any] = {"name": "pixels", "shape": [1, SIDE, SIDE, 1], "datatype": "UINT8"}
    size = SIDE * SIDE
    if kind == "json":
        tensor["data"] = [draw.randrange(256) for _ in range(size)]
    else:
        tensor["parameters"] = {"binary_data_size": size}
    outputs = [{"name": "logits", "parameters": {"binary_data": draw.random() < 0.5, "classification": 2}}]
    asked = {"id": "1", "inputs": [tensor], "outputs": outputs, "parameters": {"binary_data_output": True}}
    if draw.random() < 0.7:
        asked = _with_odd_value(asked, draw)
    head = json.dumps(asked).encode()
    if draw.random() < 0.4:
        head = _damaged_bytes(head, draw)
    if kind == "json":
        return INFER, {}, head
    body = head + bytes(draw.randrange(256) for _ in range(size))
    length = draw.choice([len(head)] * 6 + [0, len(head) - 1, len(body), -1, 10**9])
    return INFER, {LENGTH: str(length)}, _damaged_bytes(body, draw) if draw.random() < 0.2 else body


def _damaged_bytes(content: bytes, draw: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        at = draw.randrange(len(data) or 1)
        change = draw.randrange(4)
        if change == 0 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif change == 1:
            del data[at:]
        elif change == 2:
            data[at:at] = data[at : at + draw.randrange(1, 200)]
        else:
            data[at : at + 4] = draw.randbytes(4)
    return bytes(data)


def _with_odd_value(asked: dict[str, Any], draw: random.Random) -> Any:
    """The request with a value somewhere in it replaced by an odd one, or left out."""
    asked = copy.deepcopy(asked)
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            collect(value[key])

    collect(asked)
    # Numbers of the data are many, and one is like another.
    places = [place for place in places if not (isinstance(place[1], int) and place[1] > 4)]
    owner, key = draw.choice(places)
    if draw.random() < 0.2:
        del owner[key]
    else:
        owner[key] = draw.choice(ODD)
    return asked
