import subprocess

import pytest

from resnetlab.cli import main
from resnetlab.cli import memory as cli_plan
from resnetlab.cli.memory import HEAPS, measure_apart, own_memory
from resnetlab.models.memory import predict_memory
from resnetlab.models.zoo import model_config


def rows(text: str) -> dict[str, str]:
    return {label: value for label, _, value in (line.partition("  ") for line in text.splitlines())}


def test_plan_prints_the_prediction(capsys):
    assert main(["plan", "cifar_resnet20", "--batch-size", "4", "--checkpoint-every", "2"]) == 0
    shown = rows(capsys.readouterr().out)
    predicted = predict_memory(model_config("cifar_resnet20"), 4, checkpointing=2)
    assert shown["saved activations"].split() == [f"{predicted.saved_activations / 2**20:.2f}", "MiB"]
    assert shown["multiply-adds"].strip() == f"{predicted.multiply_adds:,}"
    assert not any("measured" in label for label in shown)


@pytest.mark.parametrize("words", ["resnet35", "cifar_resnet20 --batch-size 1", "mlp_resnet8 --bach 1"])
def test_wrong_words_end_with_code_2(words, capsys):
    try:
        code = main(["plan", *words.split()])
    except SystemExit as exit_:  # tyro leaves by itself
        code = exit_.code
    assert code == 2


@pytest.mark.skipif(not cli_plan.STATUS.exists(), reason="the measure reads /proc")
def test_measured_peak_is_near_the_prediction_where_activations_decide():
    asked = cli_plan.Plan(name="cifar_resnet20", batch_size=48)
    peak = measure_apart(asked, HEAPS["freed memory given back"])
    assert peak == pytest.approx(predict_memory(model_config("cifar_resnet20"), 48).total, rel=0.25)


def test_measured_peaks_are_printed_with_their_labels(monkeypatch, capsys):
    monkeypatch.setattr(cli_plan, "measure_apart", lambda _asked, heap: (3 + len(heap)) * 2**20)
    assert main(["plan", "cifar_resnet8", "--batch-size", "2", "--measure"]) == 0
    out = capsys.readouterr().out
    assert "measured peak of a training process on the CPU" in out
    shown = rows(out)
    assert shown["freed memory given back"].split() == ["4.00", "MiB"]
    assert shown["the usual heap"].split() == ["3.00", "MiB"]


def test_measured_step_that_fails_says_why_with_code_1(monkeypatch, capsys):
    def fail(*_arguments, **_settings):
        return subprocess.CompletedProcess([], -9, "", "")

    monkeypatch.setattr(cli_plan.subprocess, "run", fail)
    assert main(["plan", "cifar_resnet8", "--batch-size", "2", "--measure"]) == 1
    assert "ended by signal 9" in capsys.readouterr().err


def test_system_without_proc_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setattr(cli_plan, "STATUS", tmp_path / "status")
    with pytest.raises(cli_plan.ConfigError, match="leave it out"):
        own_memory("VmHWM")
