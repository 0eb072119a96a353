"""Every network of the zoo, in every float32 format, computes what torch does; docs/exports.md is drawn from that."""

import json

import pytest

from resnetlab.models.zoo import list_models
from tests.deploy.zoo import FORMATS_HERE, PAGE, RECORD, checks, page

SAMPLE = ("cifar_resnet8", "cifar_preact_resnet20", "mlp_resnet8", "seresnet18")
"""One of each kind; resnets of four stages, VGG and all else are among the slow ones."""


@pytest.fixture(autouse=True)
def _extras():
    for extra in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(extra)


def passes(name):
    found = checks(name)
    assert [check.name for check in found] == list(FORMATS_HERE)
    for check in found:
        assert (check.passed, check.changed) == (True, 0), check
        assert check.relative <= 1e-5


@pytest.mark.parametrize("name", SAMPLE)
def test_sample_of_the_zoo_passes_in_every_format(name):
    passes(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if name not in SAMPLE])
def test_every_network_of_the_zoo_passes_in_every_format(name):
    passes(name)


def test_page_is_drawn_from_the_record():
    record = json.loads(RECORD.read_text())
    assert PAGE.read_text() == page(record)
    assert set(record["networks"]) <= set(list_models())
