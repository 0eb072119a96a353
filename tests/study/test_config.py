import shlex
from dataclasses import replace

import pytest

from resnetlab.cli.commands import read_command
from resnetlab.core.errors import ConfigError
from resnetlab.core.serialize import as_plain
from resnetlab.data.config import AugmentConfig, DecodeConfig
from resnetlab.study import Study, study_command
from resnetlab.study.config import known_axes, read_axes, study_recipe
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe

BOTH = ("none", "default")


def config_of(*words: object) -> Study:
    return read_command(["study", *map(str, words)]).config


def test_study_alone_is_plain_and_residual_nets_over_three_depths():
    assert config_of() == Study()
    assert Study().axes == {"shortcut": BOTH, "depth": ("8", "20", "56")}
    assert (Study().seeds, Study().recipe.model, Study().recipe.training.augment.crop_padding) == (
        3,
        "cifar_resnet20",
        0,
    )


@pytest.mark.parametrize(
    ("words", "model", "axes"),
    [
        (["--depths", "14", "8"], "cifar_resnet20", {"shortcut": BOTH, "depth": ("8", "14")}),
        (["--kinds", "residual"], "cifar_resnet20", {"shortcut": ("default",), "depth": ("8", "20", "56")}),
        (["--shortcut", "B"], "cifar_resnet20", {"shortcut": ("none", "B"), "depth": ("8", "20", "56")}),
        (["--family", "imagenet", "--depths", "18"], "resnet34", {"shortcut": BOTH, "depth": ("18",)}),
        (["--family", "mlp", "--depths", "9"], "mlp_resnet34", {"shortcut": BOTH, "depth": ("9",)}),
        (["--model", "resnet18", "--depths", "34"], "resnet18", {"shortcut": BOTH, "depth": ("34",)}),
        (
            ["--depths", "8", "--axis", "training.lr=0.1,0.2"],
            "cifar_resnet20",
            {"shortcut": BOTH, "depth": ("8",), "training.lr": ("0.1", "0.2")},
        ),
    ],
    ids=str,
)
def test_depths_kinds_and_family_are_short_for_axes(words, model, axes):
    found = config_of(*words)
    assert (found.recipe.model, found.recipe.shortcut, found.axes) == (model, "default", axes)


def test_only_the_short_form_trains_without_a_random_crop():
    assert config_of("--depths", 8).recipe.training.augment.crop_padding == 0
    assert config_of("--depths", 8, "--crop-padding", 1).recipe.training.augment.crop_padding == 1
    assert config_of("--axis", "depth=8").recipe == study_recipe()


def test_command_of_a_study_makes_the_same_study():
    odd = Study(
        recipe=replace(study_recipe(), model="mlp_resnet8", seed=4, options={"norm": "layer"}),
        axes={
            "options.widths": ("[64]", "[64, 32]"),
            "depth": ("8", "9"),
            "training.max_steps": ("5", "null"),
            "data": ("digits", "idx:my folder"),
        },
        seeds=5,
    )
    short = Study(
        recipe=replace(Study().recipe, options={"norm": "layer"}), axes={"shortcut": BOTH, "depth": ("8", "14")}
    )
    decoded = replace(Study().recipe, decode=DecodeConfig(workers=2))
    lr = Study(recipe=study_recipe(), axes={"shortcut": ("A", "none"), "training.lr": ("0.05", "0.1")}, seeds=2)
    commands = {
        "resnetlab study --out STUDY": Study(),
        "resnetlab study --out STUDY --depths 8 14 --options norm layer": short,
        "resnetlab study --out STUDY --axis shortcut=A,none --axis training.lr=0.05,0.1 --seeds 2": lr,
        # The workers of a study are no part of it.
        "resnetlab study --out STUDY --data-workers 2": Study(recipe=decoded),
        study_command(odd): odd,
    }
    for command, study in commands.items():
        assert study_command(study) == command
        assert read_command(shlex.split(command)[1:]).config == study


def test_axes_of_flags_stand_beside_those_of_the_file_or_in_their_place(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(
        "model: cifar_resnet8\noptions: {norm: group}\nseeds: 4\n"
        "axes:\n  shortcut: [A, B]\n  training.lr: [0.1, 1e-3]\n"
    )
    plain = config_of(file)
    assert plain.axes == {"shortcut": ("A", "B"), "training.lr": ("0.1", "0.001")}
    assert (plain.seeds, plain.recipe.model, plain.recipe.options) == (4, "cifar_resnet8", {"norm": "group"})
    changed = config_of(file, "--axis", "shortcut=none,C", "--axis", "depth=8,20", "--seeds", 2, "--epochs", 3)
    assert changed.axes == {"shortcut": ("none", "C"), "training.lr": ("0.1", "0.001"), "depth": ("8", "20")}
    assert (changed.seeds, changed.recipe.training.epochs, changed.recipe.options) == (2, 3, {"norm": "group"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("axes: [1]\n", "must hold lists"),
        ("axes: {shortcut: A}\n", "must hold lists"),
        ("axes: {shortcut: [A]}\nseeds: two\n", "a whole number"),
        ("axis: {shortcut: [A]}\n", "unknown setting"),
        ("model: cifar_resnet8\n", "one or more"),
    ],
)
def test_file_that_is_no_study_is_refused_with_the_reason(tmp_path, text, message):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        config_of(tmp_path / "s.yaml")


def test_axes_are_read_from_texts():
    assert read_axes(["model.shortcut=A,none", "model.norm=batch", "depth=20,56", "options.widths=[64],[64,32]"]) == {
        "shortcut": ("A", "none"),
        "options.norm": ("batch",),
        "depth": ("20", "56"),
        "options.widths": ("[64]", "[64, 32]"),
    }
    for text in ("depth", "=1", "depth=", "depth=[1", "depth={", ""):
        with pytest.raises(ConfigError, match="NAME=VALUE"):
            read_axes([text])
    with pytest.raises(ConfigError, match="stands twice"):
        read_axes(["depth=8", "depth=20"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axes": {}}, "one or more"),
        ({"axes": {"lr": ("0.1",)}}, "'training.lr'"),
        ({"axes": {"training.lrr": ("0.1",)}}, "'training.lr'"),
        ({"axes": {"seed": ("1",)}}, "--seeds"),
        ({"axes": {"options": ("1",)}}, "unknown axis"),
        ({"axes": {"options.": ("1",)}}, "unknown axis"),
        ({"axes": {"options.a.b": ("1",)}}, "unknown axis"),
        ({"axes": {"depth": ()}}, "one value or more"),
        ({"axes": {"depth": ("8", "8")}}, "all different"),
        ({"axes": {"depth": tuple(map(str, range(99))), "training.lr": tuple(map(str, range(99)))}}, "at most"),
        ({"seeds": 0}, "from 1 to 1000"),
        ({"seeds": 10**9}, "from 1 to 1000"),
        ({"recipe": Recipe(model="mlp_resnet8", options={"depth": "5"})}, "would undo the axis depth"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Study(**settings)


def test_family_and_model_cannot_name_two_networks():
    with pytest.raises(ConfigError, match="name two networks"):
        config_of("--family", "mlp", "--model", "resnet18")


def test_every_field_of_the_recipe_is_an_axis():
    names = set(known_axes())
    assert {"model", "shortcut", "weights", "data", "decode.image_size", "training.augment.flip", "depth"} <= names
    plain = as_plain(Recipe(training=TrainConfig(augment=AugmentConfig())))
    for name in names - {"depth"}:
        inner = plain
        for part in name.split("."):
            inner = inner[part]
