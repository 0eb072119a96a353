import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import save

from resnetlab.core.errors import CheckpointError, ConfigError, MissingExtraError
from resnetlab.models.hub import fetch, read_bundle, write_bundle
from resnetlab.models.pretrained import PRETRAINED, Preprocessing, default_tag
from resnetlab.models.weights import export_weights
from resnetlab.models.zoo import create_model, list_models
from tests.conftest import ROOT
from tests.models.loopback import COMMIT, serve

needs_hub = pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="needs the extra hub")


@pytest.fixture
def hub():
    with serve() as running:
        yield running


@pytest.fixture
def client(tmp_path):
    """Runs code in a process of its own, whose hub is at that address; the cache stays between calls."""

    def run(code, address):
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environment |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_loopback"}
        environment |= {"OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


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


@pytest.mark.parametrize(("name", "nearest"), [("resnet50.tv_in2k", "resnet50.tv_in1k"), ("cifar_resnet20", "unknown")])
def test_unknown_weights_are_answered_with_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=nearest):
        create_model(name, pretrained=True, device="meta")


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'resnetlab\[hub\]'") as caught:
        fetch("resnet18")
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("name", ["cifar_preact_resnet20", "mlp_resnet8", "cifar_resnet8"])
def test_folder_rebuilds_the_network(tmp_path, name):
    net = create_model(name, seed=3, num_classes=4).eval()
    write_bundle(net, tmp_path, title="Mine", text="Trained at home.")
    again = read_bundle(tmp_path).eval()
    assert again.config == net.config
    x = torch.randn(2, net.config.in_chans, net.config.image_size, net.config.image_size)
    assert torch.equal(again(x), net(x))
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: resnetlab\n")
    assert "# Mine\n\nTrained at home." in card


@pytest.mark.parametrize(
    "damage",
    [
        "[]",
        "{",
        *(f'{{"library_name": "resnetlab"{rest}}}' for rest in ("", ', "kind": "resnet"', ', "kind": "os"')),
        "{}",
    ],
)
def test_folder_with_a_wrong_configuration_is_refused(tmp_path, damage):
    write_bundle(create_model("cifar_resnet8"), tmp_path, title="x")
    (tmp_path / "config.json").write_text(damage)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_bundle(tmp_path)


def test_only_our_networks_become_folders(tmp_path):
    with pytest.raises(ConfigError, match="create_model"):
        write_bundle(torch.nn.Linear(2, 2), tmp_path, title="x")


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


@needs_hub
def test_what_is_pushed_is_pulled(hub, client):
    code = (
        "import torch; from resnetlab import create_model; from resnetlab.models.hub import pull, push\n"
        "net = create_model('cifar_resnet8', seed=4, num_classes=5).eval()\n"
        "print(push(net, 'me/small', text='For a test.'))\n"
        "again = pull('me/small').eval(); x = torch.randn(2, 3, 32, 32)\n"
        "print(torch.equal(again(x), net(x)), again.config == net.config)"
    )
    code_, out, errors = client(code, hub.address)
    assert (code_, out) == (0, f"{hub.address}/me/small/commit/{COMMIT}\nTrue True\n"), errors
    assert {file for _, file in hub.files} == {"config.json", "model.safetensors", "README.md"}
    assert b"For a test." in hub.files["me/small", "README.md"]


@needs_hub
def test_repository_that_is_none_of_ours_is_refused(hub, client):
    hub.files["me/other", "config.json"] = b'{"architectures": ["Bert"]}'
    hub.files["me/other", "model.safetensors"] = b"x"
    code = "from resnetlab.models.hub import pull; pull('me/other')"
    code_, _, errors = client(code, hub.address)
    assert code_ == 1
    assert "CheckpointError" in errors
    assert "its library_name is another" in errors


@pytest.mark.network
@needs_hub
def test_real_weights_are_fetched():
    net = create_model("resnet18.tv_in1k")
    assert net.stem.conv.weight.std() > 0.05
