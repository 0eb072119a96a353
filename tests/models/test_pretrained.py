# ruff: noqa: F811  # fixtures
import sys
from importlib.util import find_spec

import pytest
from safetensors.torch import save

from resnetlab.core.errors import ConfigError, MissingExtraError
from resnetlab.models.pretrained import PRETRAINED, Preprocessing, default_tag, fetch
from resnetlab.models.weights import export_weights
from resnetlab.models.zoo import create_model, list_models
from tests.models.loopback import client, hub  # noqa: F401

needs_hub = pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="needs the extra hub")


def test_every_tag_is_of_a_network_of_the_zoo():
    names = {tag.partition(".")[0] for tag in PRETRAINED}
    assert names <= set(list_models())
    assert all(default_tag(name).startswith(f"{name}.") for name in names)
    assert all(len(row.revision) == 40 or row.revision == "main" for row in PRETRAINED.values())


def test_tags_are_listed_by_wildcard():
    assert list_models("resnet50", pretrained=True) == ["resnet50.tv2_in1k", "resnet50.tv_in1k"]
    assert list_models("*.tv2_in1k", pretrained=True)[0] == "resnet50.tv2_in1k"
    assert default_tag("resnet50") == "resnet50.tv2_in1k"


def test_preprocessing_is_that_of_torchvision():
    assert PRETRAINED["resnet50.tv_in1k"].preprocessing == Preprocessing()
    assert Preprocessing().resize == 256
    assert PRETRAINED["resnet50.tv2_in1k"].preprocessing.resize == 232


@pytest.mark.parametrize(
    ("name", "nearest"), [("resnet50.tv_in2k", "resnet50.tv_in1k"), ("cifar_resnet20", "no pretrained weights of")]
)
def test_unknown_weights_are_answered_with_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=nearest):
        create_model(name, pretrained=True, device="meta")


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'resnetlab\[hub\]'") as caught:
        fetch("resnet18")
    assert caught.value.exit_code == 5


@needs_hub
def test_pretrained_weights_come_from_the_hub_once_and_then_from_the_cache(hub, client):
    weights = PRETRAINED["resnet18.tv_in1k"]
    net = create_model("resnet18", seed=5)
    hub.files[weights.repository, "model.safetensors"] = save(export_weights(net, "timm"))
    code = (
        "import torch; from resnetlab import create_model\n"
        "net = create_model('resnet18', pretrained=True); twin = create_model('resnet18', seed=5)\n"
        "print(all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), twin.state_dict().values())))\n"
        "small = create_model('resnet18.tv_in1k', num_classes=3, in_chans=1)\n"
        "print(torch.equal(small.stages[0][0].branch.conv1.weight, net.stages[0][0].branch.conv1.weight))\n"
        "print(tuple(small.head.weight.shape), tuple(small.stem.conv.weight.shape))"
    )
    expected = "True\nTrue\n(3, 512) (64, 1, 7, 7)\n"
    code_, out, errors = client(code, hub.address)
    assert (code_, out) == (0, expected), errors
    assert "skipped fc.bias, fc.weight" in errors  # never silent
    fetched = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert fetched == [f"/{weights.repository}/resolve/{weights.revision}/model.safetensors"]
    # Offline, the cache serves.
    assert client(code, "http://127.0.0.1:9")[:2] == (0, expected)


@needs_hub
def test_offline_without_a_copy_the_message_says_what_to_do(client):
    # Told that it is offline, the client does not try again for half a minute.
    offline = "import os; os.environ['HF_HUB_OFFLINE'] = '1'; "
    code = f"{offline}from resnetlab import create_model; create_model('resnet50.tv2_in1k')"
    code_, _, errors = client(code, "http://127.0.0.1:9")
    assert code_ == 1
    last = errors.strip().splitlines()[-1]
    assert "cannot fetch model.safetensors of timm/resnet50.tv2_in1k" in last
    assert "load_weights(model, file)" in last


@pytest.mark.network
@needs_hub
def test_real_weights_are_fetched():
    net = create_model("resnet18.tv_in1k")
    assert net.stem.conv.weight.std() > 0.05
