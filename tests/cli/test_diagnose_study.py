"""``resnetlab diagnose`` of a whole study, from end to end on small nets on digits."""

import json
import shutil

import pytest

from resnetlab.cli import main
from resnetlab.diagnostics.config import DiagnosisConfig
from resnetlab.diagnostics.diagnose import diagnose_source
from resnetlab.records.study_diagnosis import read_study_diagnosis


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Plain and residual nets of 14 layers with two seeds, after six steps."""
    out = tmp_path_factory.mktemp("study") / "depths"
    steps = ("--epochs", "1", "--max-steps", "6", "--evaluate-train", "end")
    assert main(["study", "--depths", "14", "--seeds", "2", *steps, "--workers", "1", "--out", str(out)]) == 0
    return out


def test_study_becomes_record_page_and_tables(run, study, tmp_path):
    out = tmp_path / "found"
    code, printed, errors = run("diagnose", study, "--images", "60", "--batch-size", "16", "--out", out)
    assert code == 0
    assert errors.splitlines()[0] == "[1/4] kind plain, depth 14, seed 0"
    found = read_study_diagnosis(out / "study-diagnosis.json")
    assert [(run.values["kind"], run.seed) for run in found.runs] == [
        ("plain", 0), ("residual", 0), ("plain", 1), ("residual", 1)
    ]  # fmt: skip
    assert [cell.n for cell in found.conditions] == [2, 2]
    assert "kind: minus plain, paired over n seeds" in printed

    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    code, again, _ = run("report", out)
    assert (code, again) == (0, printed)
    assert (out / "report.html").read_bytes() == page


def test_each_run_is_measured_as_it_would_be_alone(run, study, tmp_path):
    words = ("--what", "all", "--images", "60", "--where", "kind=residual", "--json", "--out", tmp_path / "found")
    code, printed, _ = run("diagnose", study, *words)
    assert code == 0
    found = read_study_diagnosis(tmp_path / "found/study-diagnosis.json")
    assert json.loads(printed)["batch"] == found.batch
    alone = diagnose_source(
        str(study / "runs/residual-14-seed1"),
        DiagnosisConfig(what=("gradients", "residuals", "lesion"), images=60),
    )
    assert found.runs[1].net == alone.net


def test_run_that_has_not_ended_is_left_out_and_said_so(run, study, tmp_path):
    copied = tmp_path / "study"
    shutil.copytree(study, copied)
    (copied / "runs/plain-14-seed1/record.json").unlink()
    code, printed, _ = run("diagnose", copied, "--what", "residuals", "--out", tmp_path / "found")
    assert code == 0
    assert "left out: plain-14-seed1: has not ended" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--where", "depth=20"), "has no depth 20"),
        (("--what", "identity"), "--what identity is not possible for a study"),
        (("--model", "cifar_resnet14"), "--model is not possible for a study"),
    ],
)
def test_wrong_words_end_in_one_line(run, study, tmp_path, words, message):
    code, _, errors = run("diagnose", study, *words, "--out", tmp_path / "found")
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_where_of_a_single_network_is_refused(run, tmp_path):
    code, _, errors = run("diagnose", "cifar_resnet8", "--where", "depth=8", "--out", tmp_path / "found")
    assert code == 2
    assert "--where chooses runs of a study" in errors


def test_damaged_checkpoint_is_left_out_and_said_so(run, study, tmp_path):
    copied = tmp_path / "study"
    shutil.copytree(study, copied)
    weights = copied / "runs/plain-14-seed0/last/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    code, printed, _ = run("diagnose", copied, "--what", "residuals", "--out", tmp_path / "found")
    assert code == 0
    assert "left out: plain-14-seed0: " in printed
    assert "is damaged" in printed


def test_folder_tells_of_the_last_diagnosis_alone(run, study, tmp_path):
    out = tmp_path / "found"
    assert run("diagnose", "cifar_resnet8", "--what", "gradients", "--out", out)[0] == 0
    _, of_study, _ = run("diagnose", study, "--what", "residuals", "--out", out)
    assert run("report", out)[:2] == (0, of_study)
    _, of_net, _ = run("diagnose", "cifar_resnet8", "--what", "gradients", "--out", out)
    assert run("report", out)[:2] == (0, of_net)
    assert not (out / "figures").exists()


def test_place_that_cannot_be_is_known_before_the_work(run, study):
    code, printed, errors = run("diagnose", study, "--out", "/proc/found")
    assert (code, printed) == (5, "")
    assert "[1/4]" not in errors
