"""The page as it is written: what stands in it, how large it is, and for which networks there is none."""

import json
import re
import shutil
from base64 import b64decode, b64encode
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import torch

from resnetlab.cli import main
from resnetlab.core.errors import CheckpointError, ConfigError
from resnetlab.core.serialize import write_record
from resnetlab.deploy.bundle import read_bundle, seal
from resnetlab.deploy.export import ExportConfig, chosen_formats
from resnetlab.deploy.golden import FP32_TOLERANCE, GOLDEN, read_golden
from resnetlab.deploy.load import load
from resnetlab.deploy.web import page as pages
from resnetlab.deploy.web.page import MOST_NUMBERS, MOST_WORK, WEB, require_page, served_page, web_page
from tests.deploy.web.bundles import CLASSES, made_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    for extra in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(extra)
    folder = tmp_path_factory.mktemp("bundle") / "small"
    return made_bundle(folder, "cifar_resnet8", 12, 3), folder


def content(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="network">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def hashes(page: str, tag: str) -> list[str]:
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts]


@pytest.mark.parametrize("kind", ["page", "server"])
def test_policy_names_the_one_style_and_the_one_script_and_nothing_else_runs(made, kind):
    page = web_page(*made) if kind == "page" else served_page(made[0])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (style,), (script,) = hashes(page, "style"), hashes(page, "script")
    assert dict(rule.split(" ", 1) for rule in policy.split("; ")) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": style,
        "script-src": script,
        "connect-src": "'none'" if kind == "page" else "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search(r"<link|<iframe|<img|\ssrc=|\shref=|\sstyle=|\son[a-z]+=|https?://(?!www.w3.org)", page)


def test_page_holds_classes_golden_images_and_their_logits(made):
    bundle, folder = made
    held, golden = content(web_page(bundle, folder)), read_golden(bundle, folder)
    assert (held["classes"], held["side"], held["channels"]) == (list(CLASSES), 12, 3)
    assert held["tolerance"] == FP32_TOLERANCE
    assert held["largest"] == pytest.approx(np.abs(golden.logits).max())
    assert len(held["golden"]) == 32
    for image, kept in zip(held["golden"], golden.images, strict=True):
        assert b64decode(image["png"]) == (folder / kept.file).read_bytes()
        assert image["answer"] == kept.answer
        assert np.allclose(image["logits"], kept.logits, rtol=1e-6)


def test_names_are_escaped(made):
    page = web_page(*made)
    assert "truck <b>&" not in page
    assert "<bdi>truck &lt;b&gt;&amp;</bdi>" in page
    hostile = replace(made[0], name="x", classes=("</script><script>alert(1)</script>", *CLASSES[1:]))
    assert served_page(hostile).count("<script") == 2
    assert content(served_page(hostile))["classes"][0] == hostile.classes[0]


def test_a_page_that_would_be_large_has_half_weights_unless_that_changes_an_answer(made, monkeypatch):
    bundle, folder = made
    single = web_page(bundle, folder)
    monkeypatch.setattr(pages, "LARGE_PAGE", 1000)
    half = web_page(bundle, folder)
    assert len(half) < len(single) - 0.4 * len(content(single)["program"]["data"])
    assert FP32_TOLERANCE < content(half)["tolerance"] <= 2 * pages.HALF_TOLERANCE + FP32_TOLERANCE
    monkeypatch.setattr(pages, "HALF_TOLERANCE", 1e-9)
    assert web_page(bundle, folder) == single


def test_large_golden_images_or_a_slow_network_leave_fewer_of_them(made, monkeypatch):
    bundle, folder = made
    last = read_golden(bundle, folder).images[-1].file.split("/")[1]
    monkeypatch.setattr(pages, "GOLDEN_BYTES", 5000)
    few = [image["name"] for image in content(web_page(bundle, folder))["golden"]]
    assert few[:2] == [last, "000.png"]
    assert 2 <= len(few) < 20
    monkeypatch.setattr(pages, "GOLDEN_WORK", 1)
    assert [image["name"] for image in content(web_page(bundle, folder))["golden"]] == [last]


def test_golden_images_that_the_network_does_not_give_keep_no_half_weights(made, tmp_path, monkeypatch):
    bundle, folder = made
    monkeypatch.setattr(pages, "LARGE_PAGE", 1000)
    golden = read_golden(bundle, folder)
    wrong = replace(golden.images[0], logits=tuple(-value for value in golden.images[0].logits))
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    write_record(copy / GOLDEN, replace(golden, images=(wrong, *golden.images[1:])))
    assert content(web_page(seal(bundle, copy), copy))["tolerance"] == FP32_TOLERANCE


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("resnet152", 3, 60_192_808, 11_500_000_000), "too large for a page"),
        (("vgg16", 3, MOST_NUMBERS + 1, 1), "resnetlab serve"),
        (("slow", 3, 1, MOST_WORK + 1), "too large for a page"),
        (("multispectral", 5, 1, 1), "5 channels"),
    ],
)
def test_there_is_no_page_of_a_network_too_large_or_of_other_images(given, said):
    with pytest.raises(ConfigError, match=said):
        require_page(*given)
    require_page("resnet50", 3, 25_557_032, 4_089_000_000)


def test_export_asks_first_whether_there_is_a_page(made, monkeypatch):
    trained = load(made[1])
    assert "web" in chosen_formats(ExportConfig(to=("all",)), trained)
    monkeypatch.setattr(pages, "MOST_WORK", 1000)
    assert "web" not in chosen_formats(ExportConfig(to=("all",)), trained)
    with pytest.raises(ConfigError, match="cifar_resnet8 is too large for a page"):
        chosen_formats(ExportConfig(to=("web",)), trained)


def test_damaged_bundle_gives_no_page(made, tmp_path):
    bundle, folder = made
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "golden" / "003.png").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"003\.png is missing or damaged"):
        web_page(bundle, copy)


def test_scripts_compute_what_torch_does_of_an_exported_network(made, compute):
    bundle, folder = made
    pixels = torch.randint(
        0, 256, (2, 12, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    ).numpy()
    program = content(web_page(bundle, folder))["program"]
    found = compute(networks=[{"program": program, "pixels": image.ravel().tolist()} for image in pixels])["logits"]
    expected = load(folder).logits_of_pixels(pixels)
    assert np.abs([each["logits"] for each in found] - expected).max() < 1e-5 * np.abs(expected).max()


def test_export_writes_the_page_last_and_keeps_what_was_asked_for(digits_run, tmp_path):
    for extra in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(extra)
    out = tmp_path / "bundle"
    assert main(["export", str(digits_run), "--out", str(out), "--to", "web", "--golden", "6"]) == 0
    assert not (out / "onnx").exists()
    held = content((out / WEB).read_text())
    assert [image["name"] for image in held["golden"]] == [f"{number:03}.png" for number in range(6)]
    assert read_bundle(out).files[WEB].bytes == (out / WEB).stat().st_size < 1_000_000
    assert "web/index.html" in (out / "README.md").read_text()
    assert main(["verify", str(out)]) == 0
