import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import resnetlab
from resnetlab.cli.commands import read_command
from resnetlab.core.errors import ConfigError
from resnetlab.diagnostics.config import MOST_NAMED, DiagnosisConfig
from resnetlab.diagnostics.diagnose import HOMES, analysis, applicable, diagnose_command, diagnose_source
from resnetlab.diagnostics.load import INITIAL, UNTRAINED
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.shortcuts import IdentityShortcut
from resnetlab.models.zoo import create_model
from resnetlab.records.diagnosis import ANALYSES
from resnetlab.report.diagnosis.page import draw_diagnosis, render_diagnosis_page, report_of
from resnetlab.train.recipe import Recipe
from tests.conftest import ROOT, make_data
from tests.diagnostics.nets import context, diagnosed


def test_every_analysis_has_its_file_here_and_in_the_report():
    assert list(HOMES) == list(ANALYSES)
    for name in ANALYSES:
        module = analysis(name)
        assert isinstance(module.RULE, str)
        assert {"initial", "plain"} >= set(module.COMPARED)
        assert all(callable(getattr(module, word)) for word in ("applies", "measure", "judge", "explain"))
        assert report_of(name).TITLE


def test_one_analysis_loads_none_of_those_that_were_not_asked_for():
    """``gradients`` tells of blocks and of the signal as well; the others stand alone."""
    code = (
        "import sys; from resnetlab.diagnostics.diagnose import ANALYSES, analysis; analysis('lesion');"
        "print(*(name for name in ANALYSES if f'resnetlab.diagnostics.{name}' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["lesion"]


def test_lesion_builds_no_signal_grid_and_no_network_at_initialisation(data, tmp_path, monkeypatch):
    """Counted: the one network of the run, and one for each lesion; the control asks for all."""
    counts = {"grid": 0, "initial": 0}

    def counted(name, made):
        def count(*given, **more):
            counts[name] += 1
            return made(*given, **more)

        return count

    from resnetlab.diagnostics import load, signal

    monkeypatch.setattr(signal, "signal_grid", counted("grid", signal.signal_grid))
    monkeypatch.setattr(load.DiagnosedNet, "at_start", counted("initial", load.DiagnosedNet.at_start))
    recipe = Recipe(model="cifar_resnet14", training=replace(Recipe().training, epochs=1, max_steps=2))
    resnetlab.run_recipe(recipe, tmp_path / "run")
    found = diagnose_source(str(tmp_path / "run"), DiagnosisConfig(what=("lesion",), images=20))
    assert counts == {"grid": 0, "initial": 0}
    assert (found.initial, found.net.signal, found.net.gradients) == (None, None, [])
    assert found.net.lesion.n == 20
    found = diagnose_source(str(tmp_path / "run"), DiagnosisConfig(what=("signal", "residuals"), batch_size=4))
    assert counts == {"grid": 2, "initial": 1}
    assert found.initial.state == INITIAL


def test_named_network_is_measured_at_initialisation_and_what_needs_training_left_out():
    found = diagnose_source("cifar_resnet8", DiagnosisConfig(batch_size=8))
    assert [finding.analysis for finding in found.findings] == [
        "gradients",
        "residuals",
        "signal",
        "shattering",
        "rank",
        "agreement",
        "step",
        "paths",
    ]
    assert (found.net.state, found.initial, found.batch, found.split) == (INITIAL, None, 8, "test")
    assert (found.net.paths.blocks, found.net.paths.n, found.net.landscape, found.net.cams) == (3, 8, None, [])
    assert found.notes == [f"lesion, landscape, cam left out: {UNTRAINED}"]


def applied(data, name, *what, **choices):
    net = diagnosed(data, name, **choices)
    return applicable(net, context(net, *what))


def test_analyses_that_need_blocks_shortcuts_or_maps_are_left_out_and_notes_say_so(data):
    chosen, notes = applied(data, "cifar_plain14")
    assert chosen == [
        "gradients",
        "residuals",
        "signal",
        "shattering",
        "rank",
        "agreement",
        "step",
        "lesion",
        "landscape",
        "cam",
    ]
    assert notes == ["paths left out: without shortcuts there is one path through it, of full length"]
    chosen, notes = applied(data, "mlp_resnet8")
    assert "cam" not in chosen
    assert notes[-1].startswith("cam left out: its last stage gives no maps")
    every = [
        "gradients",
        "residuals",
        "signal",
        "shattering",
        "rank",
        "agreement",
        "step",
        "lesion",
        "paths",
        "landscape",
        "cam",
    ]
    assert applied(data, "cifar_resnet14")[0] == every


def test_vgg_is_measured_without_what_needs_blocks_and_notes_say_so():
    data = make_data(side=32)
    chosen, notes = applied(data, "vgg11")
    assert chosen == ["gradients", "agreement", "step", "landscape", "cam"]
    assert notes == ["residuals, signal, shattering, rank, lesion, paths left out: it has no blocks"]


def test_an_analysis_asked_for_by_name_that_does_not_apply_is_a_note_too(data):
    assert applied(data, "cifar_plain14", "paths", "residuals") == (
        ["residuals"], ["paths left out: without shortcuts there is one path through it, of full length"]
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"applies to cifar_plain14: paths left out: .*; identity left out: a plain"):
        applied(data, "cifar_plain14", "paths", "identity")


class Own(nn.Module):
    """A network of nobody's but the user's: a stem, blocks or none, and a head."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Sequential(
            *(ResidualBlock(nn.Conv2d(4, 4, 3, padding=1), IdentityShortcut()) for _ in range(blocks))
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(self.stem(x)).mean(dim=(2, 3)))


SMALL = {"batch_size": 8, "path_draws": 1, "landscape_side": 3, "landscape_images": 20}


def test_own_module_with_blocks_is_diagnosed_in_memory_and_drawn(data):
    net = Own(2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = resnetlab.diagnose(net, data, **SMALL)
    analyses = ["gradients", "residuals", "shattering", "rank", "agreement", "step", "paths", "landscape"]
    assert [finding.analysis for finding in found.findings] == analyses
    assert [block.block for block in found.net.blocks] == ["body.0", "body.1"]
    assert (found.net.model, found.net.paths.blocks, found.initial) == ("Own", 2, None)
    assert any(note.startswith("signal left out: no recipe says") for note in found.notes)
    assert any(note.startswith("lesion left out: surgery needs a network") for note in found.notes)
    assert "Own, as given" in render_diagnosis_page(found, draw_diagnosis(found))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(value.grad is None for value in net.parameters())


def test_every_module_keeps_its_own_mode(data):
    net = create_model("cifar_resnet14", in_chans=1, num_classes=3).train()
    net.stages[1].eval()
    modes = [module.training for module in net.modules()]
    found = resnetlab.diagnose(net, data, images=20, **SMALL)
    assert [finding.analysis for finding in found.findings][7:] == ["paths", "landscape", "cam"]
    assert [module.training for module in net.modules()] == modes


def test_settings_of_a_source_are_refused_in_memory(data):
    with pytest.raises(ConfigError, match="device, model is not possible for a network in memory"):
        resnetlab.diagnose(Own(1), data, model="resnet18", device="cpu")


def test_module_without_blocks_is_one_clear_error_where_blocks_are_needed(data):
    with pytest.raises(ConfigError, match=r"applies to Own: residuals, lesion, paths left out: it has no blocks"):
        resnetlab.diagnose(Own(0), data, what=("residuals", "lesion", "paths"))
    found = resnetlab.diagnose(Own(0), data, what=("gradients", "residuals"), **SMALL)
    assert [gradient.block for gradient in found.net.gradients] == ["stem", "head"]
    assert found.notes == ["residuals left out: it has no blocks"]


def test_network_in_memory_gives_the_numbers_of_the_same_network_by_name():
    named = diagnose_source("cifar_resnet14", DiagnosisConfig(what=("gradients", "paths"), **SMALL))
    net = create_model("cifar_resnet14", in_chans=1, num_classes=10)
    plain = create_model("cifar_plain14", in_chans=1, num_classes=10)
    digits = resnetlab.load_data("digits")
    found = resnetlab.diagnose(net, digits, what=["gradients", "paths", "identity"], plain=plain, **SMALL)
    assert (found.net.gradients, found.net.blocks) == (named.net.gradients, named.net.blocks)
    assert found.net.paths == named.net.paths
    assert (found.plain.plain, len(found.plain.blocks), found.plain.paths) == (True, 6, None)
    assert found.notes == ["identity left out: no recipe says how it was trained"]
    lesion = resnetlab.diagnose(net, digits, "lesion", images=20).net.lesion
    assert (lesion.n, len(lesion.dropped)) == (20, 4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pair_of_tensors_is_a_set_of_images(data, dtype):
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3)
    images, labels = data.test.images.to(dtype), data.test.labels
    found = resnetlab.diagnose(net, (images, labels), what=("residuals", "cam"), cam_images=(3,), batch_size=40)
    given = images if dtype == torch.float32 else (images - images.float().mean()) / images.float().std(correction=0)
    block = net.stages[0][0]
    seen = []
    handle = block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].norm().item()))
    net.train()(given)
    handle.remove()
    assert found.net.blocks[0].input_norm == pytest.approx(seen[0], rel=1e-4)
    assert (found.net.cams[0].true, found.data["source"]) == ("0", "tensors in memory")
    for wrong in ((images[0], labels), (images, labels[:5]), (images, labels.float()), (images[:0], labels[:0])):
        with pytest.raises(ConfigError, match="not possible: give"):
            resnetlab.diagnose(net, wrong)


@pytest.mark.slow
def test_vgg_is_measured_layer_by_layer(tmp_path):
    images, labels = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), dtype=np.uint8), np.arange(24) % 2
    np.savez(tmp_path / "some.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    found = diagnose_source(
        "vgg11", DiagnosisConfig(data=f"npz:{tmp_path / 'some.npz'}", what=("gradients",), batch_size=2)
    )
    assert len([gradient for gradient in found.net.gradients if gradient.block.startswith("stages.")]) == 8
    assert draw_diagnosis(found)


@pytest.mark.parametrize(
    ("name", "what", "message"),
    [
        ("cifar_resnet8", "lesion", "it is not trained"),
        ("cifar_resnet8", "identity", "train it first"),
        ("cifar_resnet8", "landscape", "it is not trained"),
        ("cifar_resnet8", "cam", "it is not trained"),
        ("cifar_plain8", "paths", "one path"),
        ("cifar_resnet9", "all", "neither a folder or file that exists nor a network's name: .*its depth must be"),
        ("nowhere/run", "all", "does not exist"),
        ("cifar_resnt20", "all", "nor a network's name: .*did you mean 'cifar_resnet20'"),
    ],
)
def test_what_cannot_be_told_is_refused(name, what, message):
    with pytest.raises(ConfigError, match=message):
        diagnose_source(name, DiagnosisConfig(what=(what,)))


def test_configuration_names_analyses_and_limits():
    assert DiagnosisConfig(what=("identity", "all", "lesion")).analyses == [
        "gradients", "residuals", "signal", "shattering", "rank", "agreement", "step",
        "lesion", "paths", "landscape", "cam", "identity",
    ]  # fmt: skip
    for wrong in (
        {"what": ()}, {"batch_size": 1}, {"images": 0}, {"epochs": 0}, {"seed": -1}, {"device": "tpu"},
        {"path_draws": 0}, {"landscape_side": 4}, {"landscape_side": 1}, {"landscape_reach": 0.0},
        {"landscape_reach": float("nan")}, {"landscape_images": 0}, {"cam_images": (-1,)},
        {"cam_images": tuple(range(MOST_NAMED + 1))},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            DiagnosisConfig(**wrong)


def test_command_reproduces_the_diagnosis():
    config = DiagnosisConfig(
        what=("lesion", "signal"),
        batch_size=8,
        image=(Path("a.png"), Path("b c.png")),
        options={"norm": "group"},
        cam_images=(3, 17),
        cam_layer="stages.0",
    )
    words = diagnose_command("a run", config)
    assert words.startswith("resnetlab diagnose 'a run' --out DIAGNOSIS")
    command = read_command(shlex.split(words)[1:])
    assert (command.source, command.config) == ("a run", config)


def test_nets_of_one_model_are_told_apart_by_their_shortcut(data):
    one = diagnosed(data)
    assert replace(one, recipe=Recipe(model="cifar_resnet8", shortcut="none")).name == "cifar_resnet8 (shortcut none)"
    assert one.name == "cifar_resnet8"
