"""Every network of the zoo, in every float32 format, computes what torch does; docs/exports.md is drawn from that."""

import json

import pytest

from resnetlab.models.zoo import list_models
from tests.deploy.zoo import FORMATS_HERE, PAGE, RECORD, checks, page

SAMPLE = ("cifar_resnet8", "cifar_preact_resnet20", "mlp_resnet8")
SLOW = ("seresnet18", "resnetv2_50d_gn", "plain34", "vgg11_bn", "wide_resnet16_4")
"""One of each kind; all of them take half an hour: python -m tests.deploy.zoo."""


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


@pytest.mark.long
@pytest.mark.parametrize("name", SLOW)
def test_larger_sample_of_the_zoo_passes_in_every_format(name):
    passes(name)


def test_every_network_of_the_record_passes_and_none_is_left_out():
    record = json.loads(RECORD.read_text())
    assert PAGE.read_text() == page(record)
    assert set(record["networks"]) == set(list_models())
    found = [check for each in record["networks"].values() for check in each]
    assert all(check["passed"] and not check["changed"] and check["relative"] <= 1e-5 for check in found)
