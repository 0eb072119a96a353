"""A bundle goes to a hub on the loopback address and comes back the same; what is none of ours is refused."""
# ruff: noqa: F811  # fixtures

import sys
from importlib.util import find_spec

import pytest

from resnetlab.core.errors import CheckpointError, MissingExtraError
from resnetlab.deploy.share import pull, push
from tests.models.loopback import COMMIT, client, hub  # noqa: F401

needs_hub = pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="needs the extra hub")


def words(*words):
    return ["-m", "resnetlab", *map(str, words)]


@needs_hub
def test_what_is_pushed_is_pulled(hub, client, bundle, tmp_path):
    code, out, errors = client(words("push", bundle, "me/small"), hub.address)
    assert (code, out) == (0, f"{hub.address}/me/small/commit/{COMMIT}\n"), errors
    sent = {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    assert {name: content for (_, name), content in hub.files.items()} == sent
    hub.files["me/small", ".gitattributes"] = b"*.bin lfs"
    code, out, errors = client(words("pull", "me/small", "--out", tmp_path / "copy"), hub.address)
    assert (code, out) == (0, f"cifar_resnet8, 10 classes; bundle in {tmp_path / 'copy'}\n"), errors
    copy = tmp_path / "copy"
    assert {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()} == sent
    # From the cache, without a network.
    code, out, errors = client("import resnetlab; print(resnetlab.load('hub:me/small').model)", "http://127.0.0.1:9")
    assert (code, out) == (0, "cifar_resnet8\n"), errors


@needs_hub
def test_run_is_exported_before_it_is_pushed(hub, client, digits_run):
    code, _, errors = client(words("push", digits_run, "me/digits"), hub.address)
    assert code == 0, errors
    names = {name for _, name in hub.files}
    assert {"bundle.json", "config.json", "model.safetensors", "README.md", "golden/000.png"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in names)
    assert b"# digits\n" in hub.files["me/digits", "README.md"]


@needs_hub
def test_repository_without_a_bundle_and_a_damaged_one_are_refused(hub, client, bundle, tmp_path):
    hub.files["me/other", "config.json"] = b'{"architectures": ["Bert"]}'
    code, _, errors = client(words("pull", "me/other", "--out", tmp_path / "a"), hub.address)
    assert (code, "holds no bundle" in errors) == (4, True)
    assert client(words("push", bundle, "me/small"), hub.address)[0] == 0
    hub.files["me/small", "model.safetensors"] += b"x"
    code, _, errors = client(words("pull", "me/small", "--out", tmp_path / "b"), hub.address)
    assert (code, "model.safetensors is missing or damaged" in errors) == (4, True)
    assert list(tmp_path.glob("[.a-b]*")) == []
    code, _, errors = client(words("pull", "me/nothing", "--out", tmp_path / "c"), hub.address)
    assert (code, "cannot fetch me/nothing at main" in errors) == (4, True)


def test_damaged_bundle_is_not_pushed(bundle, tmp_path, monkeypatch):
    from shutil import copytree

    monkeypatch.setattr("resnetlab.deploy.share._load_hub", lambda: None)
    copytree(bundle, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("other")
    with pytest.raises(CheckpointError, match=r"README.md is missing or damaged"):
        push(tmp_path / "copy", "me/small")


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'resnetlab\[hub\]'"):
        pull("me/small")
