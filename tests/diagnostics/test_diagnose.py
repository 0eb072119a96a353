import copy
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch

from resnetlab.cli.commands import read_command
from resnetlab.core.errors import ConfigError
from resnetlab.diagnostics.config import MOST_NAMED, DiagnosisConfig
from resnetlab.diagnostics.diagnose import UNTRAINED, diagnose, diagnose_command, possible_parts
from resnetlab.diagnostics.load import INITIAL, Subject
from resnetlab.diagnostics.soundings import equal_logits, first_images, further, read_net, sparing, unwatched
from resnetlab.models.surgery import deepen
from resnetlab.models.zoo import create_model
from resnetlab.report.diagnosis.figures import draw_diagnosis_figures
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe
from tests.conftest import make_data

PASS = ["gradients", "residuals"]


def subject(net, data) -> Subject:
    return Subject(net=net, data=data, recipe=Recipe(), state=INITIAL, run=False, trained=True, notes=[])


@pytest.mark.parametrize("training", [True, False])
def test_readings_leave_the_network_as_it_was(data, training):
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3).train(training)
    before = copy.deepcopy(net.state_dict())
    batch = first_images(data, 8, 0, torch.device("cpu"))
    state = torch.get_rng_state()
    found = read_net(subject(net, data), [*PASS, "lesion"], batch, seed=0, images=9, progress=unwatched)
    # The depth of 8 leaves one block that keeps the shape, and it is alone in its stage.
    assert found.lesion is None
    assert len(found.blocks) == 3
    assert net.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_dropout_is_drawn_from_the_seed(data):
    net = create_model("wide_resnet16_4", in_chans=1, num_classes=3, image_size=8, dropout=0.5)
    batch = first_images(data, 4, 0, torch.device("cpu"))
    found = [read_net(subject(net, data), PASS, batch, seed=seed, images=9, progress=unwatched) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0].blocks != found[2].blocks


def test_deep_net_is_read_in_segments_with_equal_numbers(data, monkeypatch):
    net = create_model("cifar_resnet14", in_chans=1, num_classes=3)
    batch = first_images(data, 4, 0, torch.device("cpu"))
    assert sparing(net) is net
    usual = read_net(subject(net, data), PASS, batch, seed=0, images=9, progress=unwatched)
    monkeypatch.setattr("resnetlab.diagnostics.soundings.DEEP", 2)
    assert sparing(net) is not net
    assert read_net(subject(net, data), PASS, batch, seed=0, images=9, progress=unwatched) == usual


def test_lesion_counts_its_images_and_their_chance():
    data = make_data(test=30)
    net = create_model("cifar_resnet14", in_chans=1, num_classes=3)
    batch = first_images(data, 4, 0, torch.device("cpu"))
    found = read_net(subject(net, data), ["lesion"], batch, seed=0, images=12, progress=unwatched)
    assert found.lesion.n == 12
    assert 0 < found.lesion.chance <= 2 / 3
    assert found.blocks == []
    whole = read_net(subject(net, data), ["lesion"], batch, seed=0, images=99, progress=unwatched).lesion
    assert (whole.n, whole.chance) == (30, pytest.approx(2 / 3))


def test_deepened_net_has_equal_logits_and_a_changed_one_has_not(data):
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3)
    deeper = deepen(net, 0, 1)
    assert equal_logits(net, deeper, data)
    with torch.no_grad():
        deeper.stages[0][1].branch.norm2.weight[0] = 1e-3
    assert not equal_logits(net, deeper, data)


def test_training_on_takes_a_tenth_of_the_rate_and_no_milestones():
    config = further(TrainConfig(epochs=9, lr=1.0, schedule="step", milestones=(3,), batch_size=16), 2)
    assert (config.epochs, config.lr, config.schedule, config.milestones, config.batch_size) == (
        2, 0.1, "cosine", (), 16
    )  # fmt: skip


def test_named_network_is_read_at_initialisation_and_what_needs_training_left_out():
    found = diagnose("cifar_resnet8", DiagnosisConfig(batch_size=8))
    assert [finding.part for finding in found.findings] == ["gradients", "residuals", "signal", "paths"]
    assert (found.net.state, found.initial, found.batch) == (INITIAL, None, 8)
    assert (found.net.paths.blocks, found.net.paths.n, found.net.landscape, found.net.cams) == (3, 8, None, [])
    assert found.notes == [f"lesion, landscape, cam left out: {UNTRAINED}"]


def test_parts_that_need_blocks_shortcuts_or_maps_are_left_out_and_notes_say_so(data):
    def parts_of(name, **choices):
        net = create_model(name, in_chans=1, image_size=8, num_classes=3, **choices)
        return possible_parts(DiagnosisConfig(), replace(subject(net, data), recipe=Recipe(model=name)))

    parts, notes = parts_of("cifar_plain14")
    assert parts == ["gradients", "residuals", "signal", "lesion", "landscape", "cam"]
    assert notes == ["paths left out: without shortcuts there is one path through it, of full length"]
    parts, notes = parts_of("mlp_resnet8")
    assert "cam" not in parts
    assert notes[-1].startswith("cam left out: its last stage gives no maps")
    assert parts_of("cifar_resnet14")[0] == ["gradients", "residuals", "signal", "lesion", "paths", "landscape", "cam"]


def test_vgg_is_read_without_what_needs_blocks_and_notes_say_so():
    vgg = subject(create_model("vgg11", in_chans=1, device="meta"), make_data(side=32))
    vgg = replace(vgg, recipe=Recipe(model="vgg11"))
    parts, notes = possible_parts(DiagnosisConfig(), vgg)
    assert parts == ["gradients", "landscape", "cam"]
    assert notes == ["residuals, signal, lesion, paths left out: it has no blocks"]
    with pytest.raises(ConfigError, match="signal is not possible for vgg11: it has no blocks"):
        possible_parts(DiagnosisConfig(what=("signal",)), vgg)


@pytest.mark.slow
def test_vgg_is_read_layer_by_layer(tmp_path):
    images, labels = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), dtype=np.uint8), np.arange(24) % 2
    np.savez(tmp_path / "some.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    found = diagnose("vgg11", DiagnosisConfig(data=f"npz:{tmp_path / 'some.npz'}", batch_size=2))
    assert len([gradient for gradient in found.net.gradients if gradient.block.startswith("stages.")]) == 8
    assert draw_diagnosis_figures(found)


@pytest.mark.parametrize(
    ("name", "what", "message"),
    [
        ("cifar_resnet8", "lesion", "it is not trained"),
        ("cifar_resnet8", "identity", "train it first"),
        ("cifar_resnet8", "landscape", "it is not trained"),
        ("cifar_resnet8", "cam", "it is not trained"),
        ("cifar_plain8", "paths", "one path"),
        ("cifar_resnet9", "all", "its depth must be"),
        ("nowhere/run", "all", "does not exist"),
    ],
)
def test_what_cannot_be_told_is_refused(name, what, message):
    with pytest.raises(ConfigError, match=message):
        diagnose(name, DiagnosisConfig(what=(what,)))


def test_configuration_names_parts_and_limits():
    assert DiagnosisConfig(what=("identity", "all", "lesion")).parts == [
        "gradients", "residuals", "signal", "lesion", "paths", "landscape", "cam", "identity"
    ]  # fmt: skip
    for wrong in (
        {"what": ()}, {"batch_size": 1}, {"images": 0}, {"epochs": 0}, {"seed": -1}, {"device": "tpu"},
        {"path_draws": 0}, {"landscape_side": 4}, {"landscape_side": 1}, {"landscape_reach": 0.0},
        {"landscape_reach": float("nan")}, {"landscape_images": 0}, {"cam_images": (-1,)},
        {"cam_images": tuple(range(MOST_NAMED + 1))},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            DiagnosisConfig(**wrong)


def test_command_makes_the_diagnosis_again():
    config = DiagnosisConfig(
        what=("lesion", "signal"), batch_size=8, options={"norm": "group"}, cam_images=(3, 17), cam_layer="stages.0"
    )
    words = diagnose_command("a run", config)
    assert words.startswith("resnetlab diagnose 'a run' --out DIAGNOSIS")
    command = read_command(shlex.split(words)[1:])
    assert (command.source, command.config) == ("a run", config)


def test_twins_of_one_model_are_told_apart_by_their_shortcut(data):
    one = subject(create_model("cifar_resnet8", in_chans=1), data)
    assert replace(one, recipe=Recipe(model="cifar_resnet8", shortcut="none")).name == "cifar_resnet8 (shortcut none)"
    assert replace(one, recipe=Recipe(model="cifar_resnet8")).name == "cifar_resnet8"
