"""``resnetlab diagnose`` from end to end on small runs on digits."""

import copy
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from resnetlab.cli import main
from resnetlab.core.serialize import as_plain
from resnetlab.models.zoo import create_model
from resnetlab.records.diagnosis import read_diagnosis
from tests.made import diagnosis

SMALL = ("--epochs", "1", "--max-steps", "6", "--batch-size", "64", "--evaluate-train", "end", "--quiet")


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """On a slow machine, too, nothing tells how far the work is, so that standard error has errors alone."""
    monkeypatch.setattr("resnetlab.cli.progress.COUNT_EVERY", float("inf"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A residual net of 14 layers and its plain counterpart, after six steps."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in ("resnet", "plain"):
        assert main(["train", "--model", f"cifar_{kind}14", "--out", str(folder / kind), *SMALL]) == 0
    return folder


def test_run_with_its_plain_counterpart_becomes_record_page_and_lines(run, runs, tmp_path):
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    out = tmp_path / "found"
    words = ("--plain", runs / "plain", "--images", "60", "--batch-size", "16", "--what", "all", "identity")
    words += ("--landscape-side", "3", "--landscape-images", "40", "--path-draws", "1", "--cam-images", "3", "17")
    code, printed, errors = run("diagnose", runs / "resnet", "--epochs", "1", "--out", out, *words)
    assert (code, errors) == (0, "")
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before
    found = read_diagnosis(out / "diagnosis.json")
    analyses = ["gradients", "residuals", "signal", "shattering", "rank", "agreement", "step"]
    analyses += ["lesion", "paths", "landscape", "cam", "identity"]
    assert [finding.analysis for finding in found.findings] == analyses
    assert (found.net.state, found.initial.state) == ("after 1 epoch", "at initialisation")
    assert (found.plain.model, found.plain.lesion.n, found.net.lesion.n) == ("cifar_plain14", 60, 60)
    assert found.net.identity.equal
    assert (found.net.paths.blocks, found.initial.paths.blocks, found.plain.paths) == (6, 6, None)
    assert (found.net.landscape.n, found.plain.landscape.side, found.initial.landscape) == (40, 3, None)
    assert [cam.sample for cam in found.net.cams] == [cam.sample for cam in found.plain.cams] == [3, 17]
    for finding in found.findings:
        assert all(line in printed for line in (*finding.sentences, *finding.advice))
    assert f"Without some blocks: {found.findings[7].verdict}" in printed

    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    code, again, _ = run("report", out)
    assert (code, again) == (0, printed)
    assert (out / "report.html").read_bytes() == page


def test_json_is_the_record_and_nothing_else(run, runs, tmp_path):
    words = ("--what", "residuals", "--json", "--checkpoint", "best", "--out", tmp_path / "found")
    code, printed, errors = run("diagnose", runs / "plain", *words)
    assert (code, errors) == (0, "")
    assert json.loads(printed) == json.loads((tmp_path / "found" / "diagnosis.json").read_text())


def test_file_of_weights_is_read_with_its_network_s_name(run, tmp_path):
    weights = tmp_path / "some.safetensors"
    save_file(create_model("cifar_resnet8", num_classes=10, in_chans=1, seed=5).state_dict(), weights)
    out = tmp_path / "found"
    code, _, errors = run("diagnose", weights, "--what", "residuals", "--model", "cifar_resnet8", "--out", out)
    assert (code, errors) == (0, "")
    found = read_diagnosis(out / "diagnosis.json")
    assert found.net.state == f"weights of {weights}"
    assert "0 skipped, 0 missing" in found.notes[0]
    code, _, errors = run("diagnose", weights, "--out", out)
    assert (code, "of its weights with --model" in errors) == (2, True)


def test_taken_folder_other_form_of_data_and_false_counterpart_are_refused(run, runs, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "note.txt").write_text("mine")
    cases = [
        (("--out", tmp_path / "taken"), "holds no diagnosis"),
        (("--model", "resnet18", "--out", tmp_path / "a"), "the run in"),
        (("--plain", runs / "resnet", "--out", tmp_path / "a"), "has shortcuts"),
        (("--what", "everything", "--out", tmp_path / "a"), "invalid choice"),
    ]
    for words, message in cases:
        code, _, errors = run("diagnose", runs / "resnet", *words)
        assert (code, message in errors) == (2, True), (words, errors)
    assert not (tmp_path / "a").exists()


def test_image_or_layer_that_is_not_there_is_one_message(run, runs, tmp_path):
    words = ("diagnose", runs / "plain", "--what", "cam", "--out", tmp_path / "a")
    for more, message in (
        (("--cam-images", "0", "360"), "cam_images=360 is not possible: it must be from 0 to 359"),
        (("--cam-images", "-1"), "cam_images=(-1,) is not possible"),
        (("--cam-images", "two"), "Could not find valid parse"),
        (("--cam-layer", "stages.9"), "unknown layer 'stages.9'; did you mean 'stages"),
        (("--cam-layer", "head"), "no maps"),
        (("--landscape-side", "4"), "landscape_side=4 is not possible: it must be an odd number"),
    ):
        code, _, errors = run(*words, *more)
        assert (code, message in errors, "Traceback" in errors) == (2, True, False), errors
    assert not (tmp_path / "a").exists()
    code, printed, _ = run(*words, "--cam-images", "359", "--cam-layer", "stages.0", "--json")
    (cam,) = json.loads(printed)["net"]["cams"]
    assert (code, cam["sample"], len(cam["heat"]), len(cam["heat"][0])) == (0, 359, 8, 8)


def test_image_file_of_the_user_s_is_explained_and_a_missing_one_is_one_message(run, runs, tmp_path):
    Image.new("RGB", (20, 12), "white").save(tmp_path / "mine.png")
    words = ("diagnose", runs / "resnet", "--what", "cam", "--out", tmp_path / "a", "--image", tmp_path / "mine.png")
    code, printed, _ = run(*words)
    assert (code, "image mine.png is predicted as" in printed) == (0, True)
    found = read_diagnosis(tmp_path / "a" / "diagnosis.json")
    assert [(cam.sample, cam.name) for cam in found.net.cams] == [(None, "mine.png")]
    assert f"--image {tmp_path / 'mine.png'}" in found.command
    assert run("report", tmp_path / "a")[:2] == (0, printed)
    code, _, errors = run(*words, tmp_path / "none.png")
    assert (code, "none.png cannot be read" in errors, errors.count("\n")) == (3, True, 1)


def test_what_is_neither_a_path_nor_a_name_is_one_message(run, tmp_path):
    code, _, errors = run("diagnose", "nosuchrun", "--out", tmp_path / "a")
    assert (code, errors.count("\n")) == (2, 1)
    assert "nosuchrun is neither a folder or file that exists nor a network's name" in errors
    code, _, errors = run("diagnose", "cifar_resnt20", "--out", tmp_path / "a")
    assert (code, "did you mean 'cifar_resnet20'" in errors) == (2, True)


def test_what_does_not_apply_is_a_note_and_the_rest_is_done(run, runs, tmp_path):
    code, printed, _ = run("diagnose", runs / "plain", "--what", "paths", "residuals", "--out", tmp_path / "a")
    assert (code, "note: paths left out: without shortcuts" in printed) == (0, True)
    assert "What the blocks add: plain" in printed
    code, _, errors = run("diagnose", runs / "plain", "--what", "paths", "--out", tmp_path / "b")
    assert (code, "nothing that was asked for applies to cifar_plain14" in errors) == (2, True)


def test_run_can_be_asked_on_other_data_of_its_form(run, runs, tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 16, (40, 8, 8), dtype=np.uint8), np.arange(40) % 10
    np.savez(tmp_path / "ten.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    np.savez(tmp_path / "two.npz", x_train=images, y_train=labels % 2, x_test=images, y_test=labels % 2)
    words = ("diagnose", runs / "resnet", "--what", "gradients", "--out", tmp_path / "found", "--data")
    code, printed, _ = run(*words, f"npz:{tmp_path / 'ten.npz'}")
    assert (code, "standardised as that was" in printed) == (0, True)
    code, _, errors = run(*words, f"npz:{tmp_path / 'two.npz'}")
    assert (code, "has 2 classes, the run in" in errors) == (2, True)


def test_damaged_record_is_one_message(run, tmp_path):
    whole = as_plain(diagnosis())
    ragged, holed, cut = (copy.deepcopy(whole) for _ in range(3))
    ragged["net"]["landscape"]["losses"][0].pop()
    holed["net"]["cams"][0]["heat"] = [[]]
    cut["net"]["cams"][0]["image"] = cut["net"]["cams"][0]["image"][:60]
    for record in ({"source": 3}, ragged, holed, cut):
        (tmp_path / "diagnosis.json").write_text(json.dumps(record))
        code, _, errors = run("report", tmp_path)
        assert (code, errors.startswith("error: ")) == (3, True), errors
    (tmp_path / "diagnosis.json").write_text(json.dumps(whole))
    assert run("report", tmp_path)[0] == 0
    assert torch.get_num_threads() == 1


def test_plain_net_of_another_depth_or_other_images_is_no_control(run, runs, tmp_path):
    words = ("--plain", runs / "plain", "--out", tmp_path / "a")
    code, _, errors = run("diagnose", "cifar_resnet8", *words)
    assert code == 2
    assert "cifar_plain14 has 6 blocks, cifar_resnet8 has 3; give its plain counterpart" in errors
    # A run set some of the training images aside to choose by.
    code, _, errors = run("diagnose", "cifar_resnet14", *words)
    assert code == 2
    assert "trained on digits (training 1,295, test 360 images), not on digits (training 1,437, test 360 ima" in errors
