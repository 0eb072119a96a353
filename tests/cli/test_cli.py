import shutil
import signal
from pathlib import Path

import pytest

from resnetlab.cli.info import fold
from resnetlab.models.summary import summarise
from resnetlab.models.zoo import model_config
from tests.conftest import ROOT


def test_version_and_help(run):
    assert run("--version")[:2] == (0, "resnetlab 0.1.0\n")
    code, out, _ = run("--help")
    assert code == 0
    for verb in ("list", "info", "train", "evaluate", "study", "report"):
        assert verb in out


@pytest.mark.parametrize("verb", ["list", "info", "train", "evaluate", "study", "report"])
def test_every_verb_has_help(run, verb):
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert f"resnetlab {verb}" in out


def test_list_takes_wildcards(run):
    code, out, _ = run("list", "plain*")
    assert (code, out.split()) == (0, ["plain18", "plain34"])
    assert len(run("list")[1].split()) > 30


def test_info_shows_three_columns_side_by_side(run):
    code, out, _ = run("info", "vgg19", "plain34", "resnet34")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["vgg19", "plain34", "resnet34"]
    assert "143,667,240" in lines[2]
    assert "21,623,848" in lines[2]
    assert "21,797,672" in lines[2]
    assert lines[4].split()[2:] == ["19", "34", "34"]
    assert "11 × 3×3 conv, 256" in out


def test_info_of_another_shortcut_and_size(run):
    assert "269,722" in run("info", "cifar_resnet20")[1]
    assert "272,474" in run("info", "cifar_resnet20", "--shortcut", "B")[1]
    assert "3×64×64" in run("info", "cifar_resnet20", "--image-size", "64")[1]


def test_fold_counts_blocks_and_layers():
    layers = summarise(model_config("resnet50")).layers
    side_28 = [layer for layer in layers if layer.side == 28 and not layer.on_shortcut]
    assert fold(side_28) == [
        "1×1 conv, 128",
        "3×3 conv, 128/2",
        "1×1 conv, 512",
        "3 × [1×1 conv, 128; 3×3 conv, 128; 1×1 conv, 512]",
    ]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["trian"], 2, "did you mean 'train'"),
        (["train", "--modle", "x"], 2, "--model"),
        (["train", "--epochs", "many"], 2, "many"),
        (["train", "--epochs", "0"], 2, "epochs=0"),
        (["train", "--model", "resnet35", "--out", "OUT"], 2, "resnet34"),
        (["train", "--model", "cifar_resnet21", "--out", "OUT"], 2, "cifar_resnet20 and cifar_resnet26"),
        (["train", "--data", "digit", "--out", "OUT"], 2, "digits"),
        (["train", "--data", "idx:nowhere", "--out", "OUT"], 3, "nowhere is not a folder"),
        (["info"], 2, "name one or more"),
        (["info", "resnet35"], 2, "resnet34"),
        (["list", "zzz"], 2, "no network matches"),
        (["evaluate", "OUT"], 3, "holds no run"),
        (["report", "OUT"], 3, "holds no study"),
        (["study", "--depths", "8", "21", "--out", "OUT"], 2, "cifar_resnet20"),
        (["study", "--kinds", "plan", "--out", "OUT"], 2, "plan"),
        (["study", "--seeds", "0", "--out", "OUT"], 2, "seeds=0"),
        (["study", "--sed", "3", "--out", "OUT"], 2, "--seed"),
        ([], 2, "list"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_give_one_message_and_their_exit_code(run, tmp_path, words, code, message):
    out = tmp_path / "out"
    found, printed, errors = run(*[str(out) if word == "OUT" else word for word in words])
    assert found == code
    assert message in errors
    assert "Traceback" not in printed + errors
    assert not out.exists()


def test_train_then_evaluate_gives_the_same_figure(run, tmp_path):
    words = ("train", "--model", "cifar_resnet8", "--epochs", "2", "--out", tmp_path / "run")
    code, out, errors = run(*words)
    assert code == 0
    assert [line.split()[1] for line in errors.splitlines()] == ["1/2", "2/2"]
    code, again, _ = run("evaluate", tmp_path / "run")
    assert code == 0
    assert again.strip() == out.splitlines()[0]
    assert run("evaluate", tmp_path / "run", "--checkpoint", "best")[0] == 0
    assert run(*words)[0] == 2
    assert run(*words, "--resume", "auto")[0] == 0


def test_damaged_checkpoint_gives_exit_code_four(run, tmp_path):
    run("train", "--model", "cifar_resnet8", "--epochs", "2", "--batch-size", "256", "--out", tmp_path / "run")
    weights = tmp_path / "run" / "last" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    code, _, errors = run("evaluate", tmp_path / "run")
    assert code == 4
    assert "damaged" in errors


def test_diverged_run_gives_exit_code_one(run, tmp_path):
    code, _, errors = run("train", "--lr", "1e9", "--epochs", "1", "--out", tmp_path / "run")
    assert code == 1
    assert "the loss became nan" in errors


def test_folder_that_cannot_be_written_gives_exit_code_five(run):
    code, _, errors = run("train", "--out", "/proc/nowhere/run")
    assert code == 5
    assert "cannot write" in errors


def test_folder_without_rights_or_with_too_long_a_name_gives_exit_code_five(run, tmp_path, monkeypatch):
    assert run("train", "--out", "x" * 300)[0] == 5

    def forbidden(_path):
        raise PermissionError(13, "Permission denied", "locked")

    monkeypatch.setattr(Path, "exists", forbidden)
    code, _, errors = run("train", "--out", tmp_path / "locked")
    assert code == 5
    assert "locked: Permission denied" in errors


def test_study_in_which_every_run_diverged_gives_exit_code_one(run, tmp_path):
    code, out, errors = run(
        *("study", "--depths", "8", "--seeds", "1", "--epochs", "1", "--lr", "1e30"),
        *("--workers", "1", "--out", tmp_path / "s"),
    )
    assert code == 1
    assert "every run diverged" in errors
    assert "diverged" in out


def test_training_goes_on_when_nobody_reads_its_lines_any_more(tmp_path):
    import subprocess
    import sys

    command = f"{sys.executable} -m resnetlab train --model mlp_resnet8 --epochs 6 --out {tmp_path / 'run'}"
    subprocess.run(f"{command} 2>&1 | head -1", shell=True, capture_output=True, check=True, cwd=ROOT)
    assert (tmp_path / "run" / "record.json").is_file()


def test_output_that_cannot_be_written_is_one_message(tmp_path):
    import os
    import subprocess
    import sys

    words = [sys.executable, "-m", "resnetlab"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*words, "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert done.returncode == 5
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    narrow = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*words, "train", "--help"], capture_output=True, check=False, cwd=ROOT, env=narrow)
    assert done.returncode == 0
    assert b"the 8?8 handwritten digits" in done.stdout


def test_study_prints_tables_and_page_and_report_draws_them_again(run, tmp_path):
    words = ("study", "--depths", "8", "--seeds", "2", "--epochs", "1", "--batch-size", "256", "--out", tmp_path / "s")
    words += ("--workers", "1")
    code, out, errors = run(*words)
    assert code == 0
    assert [line.split()[0] for line in errors.splitlines()] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    page = tmp_path / "s" / "report.html"
    assert out.endswith(f"report: {page}\n")
    drawn = page.read_bytes()
    page.unlink()
    shutil.rmtree(tmp_path / "s" / "figures")
    assert run("report", tmp_path / "s")[:2] == (0, out)
    assert page.read_bytes() == drawn
    assert len(list((tmp_path / "s" / "figures").iterdir())) == 6
    assert run(*words)[:2] == (0, out)


def test_report_of_a_run_draws_its_page(run, tmp_path):
    folder = tmp_path / "run"
    run("train", "--model", "mlp_resnet8", "--epochs", "2", "--out", folder)
    drawn = (folder / "report.html").read_text()
    assert "resnetlab train --out RUN --model mlp_resnet8 --epochs 2" in drawn
    assert "Confusion matrix" in drawn
    (folder / "report.html").unlink()
    code, out, errors = run("report", folder)
    assert (code, errors) == (0, "")
    assert out.endswith(f"report: {folder / 'report.html'}\n")
    assert (folder / "report.html").read_text() == drawn
    report = (folder / "examination.json").rename(tmp_path / "elsewhere.json")
    assert run("report", folder)[0] == 0
    assert "Confusion matrix" not in (folder / "report.html").read_text()
    assert report.exists()
    (folder / "examination.json").write_text("{}")
    code, _, errors = run("report", folder)
    assert (code, "examination.json is not a valid ClassificationReport" in errors) == (3, True)
    (folder / "record.json").unlink()
    code, _, errors = run("report", folder)
    assert (code, "has not ended" in errors) == (3, True)


def test_code_of_the_card_loads_the_network_of_a_run(run, tmp_path):
    from safetensors.torch import load_file

    from resnetlab.core.serialize import read_record
    from resnetlab.records.run import RunRecord
    from resnetlab.report.model_card import loading_code

    folder, options = tmp_path / "run", ("--shortcut", "none", "--options", "norm", "group")
    run("train", "--model", "cifar_resnet8", *options, "--epochs", "1", "--batch-size", "256", "--out", folder)
    names: dict = {}
    exec(loading_code(read_record(RunRecord, folder / "record.json")).replace("RUN", str(folder)), names)
    assert not names["model"].training
    saved = load_file(folder / "last" / "model.safetensors")
    assert set(saved) == set(names["model"].state_dict())
    assert all((value == saved[name]).all() for name, value in names["model"].state_dict().items())


@pytest.mark.parametrize(("carried", "code"), [((), 130), ((signal.SIGINT,), 130), ((signal.SIGTERM,), 143)])
def test_a_signal_before_a_run_gives_its_exit_code(run, monkeypatch, carried, code):
    def interrupted(_words):
        raise KeyboardInterrupt(*carried)

    monkeypatch.setattr("resnetlab.cli.commands.run_verb", interrupted)
    assert run("list")[::2] == (code, "interrupted\n")


def test_reader_that_leaves_is_no_error():
    import subprocess
    import sys

    done = subprocess.run(
        f"{sys.executable} -m resnetlab list | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.stdout, done.stderr) == ("plain18\n", "")
