"""``resnetlab diagnose`` from end to end on small runs on digits."""

import json

import pytest
import torch
from safetensors.torch import save_file

from resnetlab.cli import main
from resnetlab.models.zoo import create_model
from resnetlab.readings import Diagnosis
from resnetlab.records import read_record

SMALL = ("--epochs", "1", "--max-steps", "6", "--batch-size", "64", "--evaluate-train", "end", "--quiet")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A residual net of 14 layers and its plain twin, after six steps."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in ("resnet", "plain"):
        assert main(["train", "--model", f"cifar_{kind}14", "--out", str(folder / kind), *SMALL]) == 0
    return folder


def test_run_with_its_plain_twin_becomes_record_page_and_lines(run, runs, tmp_path):
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    out = tmp_path / "found"
    words = ("--plain", runs / "plain", "--pictures", "60", "--batch-size", "16", "--what", "all", "identity")
    code, printed, errors = run("diagnose", runs / "resnet", "--epochs", "1", "--out", out, *words)
    assert (code, errors) == (0, "")
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before
    found = read_record(Diagnosis, out / "diagnosis.json")
    assert [finding.part for finding in found.findings] == ["gradients", "residuals", "signal", "lesion", "identity"]
    assert (found.net.state, found.initial.state) == ("after 1 epoch", "at initialisation")
    assert (found.control.model, found.control.lesion.n, found.net.lesion.n) == ("cifar_plain14", 60, 60)
    assert found.identity.equal
    for finding in found.findings:
        assert all(line in printed for line in (*finding.sentences, *finding.advice))
    assert f"Without some blocks: {found.findings[3].verdict}" in printed

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
    found = read_record(Diagnosis, out / "diagnosis.json")
    assert found.net.state == f"weights of {weights}"
    assert "0 skipped, 0 missing" in found.notes[0]
    code, _, errors = run("diagnose", weights, "--out", out)
    assert (code, "name it with --model" in errors) == (2, True)


def test_taken_folder_other_form_of_data_and_false_twin_are_refused(run, runs, tmp_path):
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


def test_run_can_be_asked_on_other_data_of_its_form(run, runs, tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    pictures, labels = rng.integers(0, 16, (40, 8, 8), dtype=np.uint8), np.arange(40) % 10
    np.savez(tmp_path / "ten.npz", x_train=pictures, y_train=labels, x_test=pictures, y_test=labels)
    np.savez(tmp_path / "two.npz", x_train=pictures, y_train=labels % 2, x_test=pictures, y_test=labels % 2)
    words = ("diagnose", runs / "resnet", "--what", "gradients", "--out", tmp_path / "found", "--data")
    code, printed, _ = run(*words, f"npz:{tmp_path / 'ten.npz'}")
    assert (code, "standardised as that was" in printed) == (0, True)
    code, _, errors = run(*words, f"npz:{tmp_path / 'two.npz'}")
    assert (code, "has 2 classes, the run in" in errors) == (2, True)


def test_damaged_record_is_one_message(run, tmp_path):
    (tmp_path / "diagnosis.json").write_text('{"source": 3}')
    code, _, errors = run("report", tmp_path)
    assert (code, errors.startswith("error: ")) == (3, True)
    assert torch.get_num_threads() == 1
