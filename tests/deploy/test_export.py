"""What an export writes, that it computes the same, and that nothing is kept of one that does not."""

import json
import subprocess
import sys
from dataclasses import replace
from shutil import copytree, move

import numpy as np
import pytest
import torch

from resnetlab import load
from resnetlab.cli import main
from resnetlab.core.errors import ConfigError, DataError, ExportError, MissingExtraError
from resnetlab.core.serialize import read_record
from resnetlab.deploy import formats
from resnetlab.deploy.bundle import read_bundle
from resnetlab.deploy.compare import Gates
from resnetlab.deploy.engines import open_predictor
from resnetlab.deploy.export import VERIFICATION, ExportConfig, Verification, export
from resnetlab.models.zoo import create_model
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import run_recipe


def test_bundle_loads_and_gives_the_logits_of_the_run(digits_run, bundle):
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1)).astype(np.uint8)
    before, after = load(digits_run), load(bundle)
    assert np.array_equal(after.logits_of_pixels(images), before.logits_of_pixels(images))
    assert (after.classes, after.preprocessing, after.results) == (before.classes, before.preprocessing, before.results)
    assert after.recipe == before.recipe


def test_every_format_is_compared_over_the_test_images(bundle):
    found = read_record(Verification, bundle / VERIFICATION).formats
    assert [check.name for check in found] == ["torch", "onnx", "openvino", "pt2"]
    for check in found:
        assert check.n == 360
        assert (check.changed, check.passed) == (0, True)
        assert check.relative <= 1e-5
        assert check.accuracy == found[0].accuracy
        assert check.milliseconds > 0
        assert check.bytes > 100_000


@pytest.mark.parametrize("shortcut", ["highway", "dropout"])
def test_nets_with_gates_are_exported_and_compared(tmp_path, shortcut):
    recipe = Recipe(model="cifar_resnet8", shortcut=shortcut, training=TrainConfig(max_steps=2))
    run_recipe(recipe, tmp_path / "run", page=False)
    export(tmp_path / "run", tmp_path / "bundle", ExportConfig(to=("onnx", "web")))
    found = read_record(Verification, tmp_path / "bundle" / VERIFICATION).formats
    assert [(check.name, check.passed, check.changed) for check in found][1:] == [("onnx", True, 0)]
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1)).astype(np.uint8)
    before, after = load(tmp_path / "run"), load(tmp_path / "bundle")
    assert np.array_equal(after.logits_of_pixels(images), before.logits_of_pixels(images))


def test_tailored_activation_goes_into_the_bundle_and_onnx(tmp_path):
    """Its slope is solved for the depth and is no weight: whoever leaves it out gives other logits."""
    options = {"init": "tat", "widths": "[16]"}
    training = TrainConfig(max_steps=3, device="cpu")
    run_recipe(
        Recipe(model="mlp_plain20", data="digits", options=options, training=training), tmp_path / "run", page=False
    )
    export(tmp_path / "run", tmp_path / "bundle", ExportConfig(to=("onnx", "pt2")))
    found = read_record(Verification, tmp_path / "bundle" / VERIFICATION).formats
    assert [(check.name, check.passed) for check in found] == [("torch", True), ("onnx", True), ("pt2", True)]
    images = np.random.default_rng(0).integers(0, 17, (9, 8, 8, 1)).astype(np.uint8)
    run, bundle = load(tmp_path / "run"), load(tmp_path / "bundle")
    logits = run.logits_of_pixels(images)
    assert np.array_equal(bundle.logits_of_pixels(images), logits)
    relus = replace(bundle.net.config, init="he").make().eval()
    relus.load_state_dict(bundle.net.state_dict())
    assert not np.allclose(replace(bundle, net=relus).logits_of_pixels(images), logits, rtol=0.01)


def test_progress_counts_reading_writing_and_comparing(digits_run, tmp_path):
    told = []
    config = ExportConfig(to=("onnx", "web"))
    export(digits_run, tmp_path / "bundle", config, on_progress=lambda *step: told.append(step))
    # Images and their answers; onnx, which is compared, and the page, which compares itself.
    assert told == [(step, 5) for step in range(1, 6)]


@pytest.mark.parametrize("engine", ["onnx", "openvino", "pt2"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_formats_take_batches_of_any_size(bundle, engine, n):
    pixels = np.random.default_rng(n).integers(0, 256, (n, 8, 8, 1)).astype(np.uint8)
    expected = load(bundle).logits_of_pixels(pixels)
    assert np.abs(open_predictor(bundle, engine).logits(pixels) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_onnx_says_classes_and_preprocessing_and_nothing_of_the_machine(bundle):
    import onnx

    model = onnx.load(bundle / "onnx" / "model.onnx")
    said = {
        entry.key: json.loads(entry.value)
        for entry in model.metadata_props
        if entry.key in ("classes", "preprocessing")
    }
    assert said["classes"] == [str(digit) for digit in range(10)]
    assert said["preprocessing"]["white"] == 16
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["pixels", "logits"]
    for file in ("onnx/model.onnx", "torch/model.pt2"):
        assert b"load.py" not in (bundle / file).read_bytes(), file


def test_repository_for_triton_holds_the_model_its_shapes_and_its_labels(bundle):
    place = bundle / "triton" / "digits"
    assert (place / "1" / "model.onnx").read_bytes() == (bundle / "onnx" / "model.onnx").read_bytes()
    assert (place / "labels.txt").read_text().split() == [str(digit) for digit in range(10)]
    config = (place / "config.pbtxt").read_text()
    assert 'name: "digits"' in config
    assert "TYPE_UINT8 dims: [ 8, 8, 1 ]" in config
    assert "TYPE_FP32 dims: [ 10 ]" in config


def test_page_is_made_of_the_golden_images_and_belongs_to_the_bundle(bundle, digits_run, tmp_path):
    assert "web/index.html" in read_bundle(bundle).files
    assert (bundle / "web" / "index.html").read_text().count("golden") >= 1
    export(digits_run, tmp_path / "page", ExportConfig(to=("web",), golden=2))
    assert not (tmp_path / "page" / "onnx").exists(), "what the page is made of was not asked for"
    assert "web/index.html" in read_bundle(tmp_path / "page").files


def test_pt2_loads_without_resnetlab(bundle):
    code = (
        "import sys, torch; sys.modules['resnetlab'] = None\n"
        f"net = torch.export.load({str(bundle / 'torch' / 'model.pt2')!r}).module()\n"
        "print(tuple(net(torch.zeros(3, 8, 8, 1, dtype=torch.uint8)).shape))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(3, 10)\n"


def test_card_says_result_classes_preprocessing_and_how_to_load(bundle):
    card = (bundle / "README.md").read_text()
    results = read_bundle(bundle).results
    assert card.startswith("---\nlibrary_name: resnetlab\n")
    assert f"On 360 test images: accuracy {100 * results['accuracy']:.2f} % (95 % interval, Wilson: " in card
    assert "10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9." in card
    assert 'resnetlab.load("FOLDER")' in card
    assert 'InferenceSession("FOLDER/onnx/model.onnx")' in card
    assert "timm" not in card
    assert "(v · 16 / 255 - mean) / std" in card


def test_int8_passes_its_gate_or_nothing_is_kept(digits_run, tmp_path):
    for extra in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
        pytest.importorskip(extra)
    loose = ExportConfig(to=("int8",), golden=2, calibrate=64, gates=Gates(max_drop=100, min_agreement=0))
    _, verification = export(digits_run, tmp_path / "loose", loose)
    names = [check.name for check in verification.formats]
    assert names == ["torch", "int8"]
    assert not (tmp_path / "loose" / "onnx").exists(), "what int8 is made of was not asked for"
    check = verification.formats[1]
    assert check.relative > 1e-5
    assert check.bytes < verification.formats[0].bytes
    assert main(["verify", str(tmp_path / "loose")]) == 0
    strict = replace(loose, gates=Gates(max_drop=0.5, min_agreement=100.1))
    with pytest.raises(ExportError, match=r"int8 is below its gate.*% of 360 answers agree \(at least 100.1 %\)"):
        export(digits_run, tmp_path / "strict", strict)
    assert not list(tmp_path.glob("*strict*"))


def test_format_that_computes_otherwise_is_refused_and_nothing_is_kept(digits_run, tmp_path, monkeypatch, capsys):
    """A control: the exported net lacks the standardisation."""

    def broken(job):
        monkeypatch.setattr(formats.TrainedNetwork, "pixel_network", property(lambda self: Bare(self.net).eval()))
        with monkeypatch.context():
            formats.write_pt2(job)
        monkeypatch.undo()

    class Bare(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, pixels):
            return self.net(pixels.permute(0, 3, 1, 2).float())

    monkeypatch.setitem(formats.FORMATS, "pt2", replace(formats.FORMATS["pt2"], write=broken))
    assert main(["export", str(digits_run), "--out", str(tmp_path / "out"), "--to", "pt2"]) == 1
    assert "pt2 does not compute what the trained network does, and nothing was kept" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "missing", "extra"),
    [("onnx", "onnxscript", "export"), ("openvino", "openvino", "openvino"), ("int8", "nncf", "openvino")],
)
def test_missing_extra_is_one_sentence_with_the_install_line(digits_run, tmp_path, monkeypatch, to, missing, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"needs {missing}.*pip install 'resnetlab\[{extra}\]'") as caught:
        export(digits_run, tmp_path / "out", ExportConfig(to=(to,)))
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_network_that_timm_has_not_is_told_what_others_load(digits_run, tmp_path):
    with pytest.raises(ConfigError, match=r"timm has no network.*--to pt2 \(plain torch\) or --to onnx"):
        export(digits_run, tmp_path / "out", ExportConfig(to=("timm",)))


def test_unknown_format_and_taken_folder_are_refused(digits_run, bundle, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'onnx'"):
        ExportConfig(to=("onxx",))
    with pytest.raises(ConfigError, match="is not empty"):
        export(digits_run, bundle)


def test_bundle_in_the_layout_of_timm_loads_here(tmp_path):
    """resnet18 with its own stem: the names in the file are timm's, the logits those of the run."""
    recipe = Recipe(model="resnet18", training=TrainConfig(epochs=1, batch_size=64, max_steps=2))
    run_recipe(recipe, tmp_path / "run", page=False)
    export(tmp_path / "run", tmp_path / "bundle", ExportConfig(to=("timm",), golden=4))
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["label_names"][3]) == ("resnet18", 10, "3")
    assert config["model_args"] == {"in_chans": 1}
    assert config["pretrained_cfg"]["mean"] == [value / 16 for value in load(tmp_path / "run").preprocessing.mean]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    expected = load(tmp_path / "run").logits_of_pixels(pixels)
    assert np.array_equal(load(tmp_path / "bundle").logits_of_pixels(pixels), expected)
    assert "local-dir:FOLDER" in (tmp_path / "bundle" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "options", "known"),
    [
        ("resnet18", {}, "resnet18"),
        ("seresnet50", {"num_classes": 3, "in_chans": 1, "image_size": 64}, "seresnet50"),
        ("resnet18", {"stem": "cifar"}, None),
        ("resnet18", {"shortcut": "A"}, None),
        ("resnet18", {"shortcut": None}, None),
        ("plain18", {}, None),
        ("cifar_resnet20", {}, None),
        ("mlp_resnet8", {}, None),
        ("wide_resnet28_10", {}, None),
    ],
)
def test_networks_that_timm_has(name, options, known):
    made = formats.TrainedNetwork(
        net=create_model(name, device="meta", **options), classes=(), preprocessing=None, model=name, origin=None
    )
    assert formats.timm_name(made) == known


def test_bundle_is_exported_again_with_the_data_of_its_run(bundle, tmp_path):
    again, _ = export(bundle, tmp_path / "again", ExportConfig(golden=3))
    assert again.classes == read_bundle(bundle).classes
    copytree(bundle, tmp_path / "other")
    path = tmp_path / "other" / "bundle.json"
    path.write_text(path.read_text().replace(again.data, "0" * 64))
    with pytest.raises(DataError, match=r"its SHA-256 is another; name the right place with --data"):
        export(tmp_path / "other", tmp_path / "out")


def test_run_whose_data_have_moved_says_so(photos, tmp_path, monkeypatch):
    from resnetlab.data.config import DecodeConfig

    copytree(photos, tmp_path / "photos")
    training = TrainConfig(epochs=1, batch_size=16, max_steps=1)
    recipe = Recipe(
        model="cifar_resnet8",
        data=f"folder:{tmp_path / 'photos'}",
        decode=DecodeConfig(image_size=28),
        training=training,
    )
    run_recipe(recipe, tmp_path / "run", page=False)
    move(tmp_path / "photos", tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"are not there.*--data"):
        export(tmp_path / "run", tmp_path / "out")
    bundle, _ = export(tmp_path / "run", tmp_path / "out", data=f"folder:{tmp_path / 'elsewhere'}")
    assert bundle.classes == ("flower", "temple")
