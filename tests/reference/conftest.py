"""torchvision, timm, transformers and captum, where they can be imported.

torchvision's wheel registers shapes for two operators of its compiled part, and does not import where that part does
not load, as beside a CPU torch: declaring the two is enough for its networks, which use neither.
"""

import importlib
import warnings
from types import ModuleType

import pytest
import torch

OPERATORS = ("nms", "qnms")
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def _load(name: str) -> ModuleType:
    for operator in OPERATORS:
        if not hasattr(torch.ops.torchvision, operator):
            _LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its missing compiled part
        try:
            return importlib.import_module(name)
        except Exception as error:  # a mismatched torchvision fails in other ways than ImportError
            pytest.skip(f"{name} cannot be imported here ({error}); make test-reference sets it up")


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    return _load("torchvision")


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    _load("torchvision")
    return _load("timm")


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    _load("torchvision")
    return _load("transformers")


@pytest.fixture(scope="session")
def captum() -> ModuleType:
    return _load("captum.attr")
