import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from resnetlab.core.errors import CheckpointError, ConfigError, DataError
from resnetlab.core.serialize import read_record
from resnetlab.data.dataset import Split, hold_out
from resnetlab.records.run import REPORT, ClassificationReport, RunRecord
from resnetlab.train.config import TrainConfig
from resnetlab.train.folder import Claim
from resnetlab.train.recipe import (
    Recipe,
    differences,
    hub_tag,
    read_recipe,
    recipe_config,
    recipe_data,
    recipe_from,
    write_recipe,
)
from resnetlab.train.run import evaluate_run, run_recipe
from tests.conftest import make_data
from tests.train.runs import Notes

TINY = Recipe(model="cifar_resnet8", training=TrainConfig(epochs=1, batch_size=256))


def test_recipe_round_trip_through_yaml(tmp_path):
    recipe = Recipe(
        model="mlp_resnet8", options={"norm": "layer"}, training=TrainConfig(schedule="step", milestones=(3,))
    )
    write_recipe(tmp_path / "recipe.yaml", recipe)
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("text", ["model: 3\nmodle: x", "- a", "", "model: [", "training: {epochs: 0}", "\x00"])
def test_yaml_that_is_no_recipe_is_a_data_error(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(DataError, match=r"recipe\.yaml"):
        read_recipe(tmp_path / "recipe.yaml")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder of a run that has ended."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run_recipe(TINY, folder)
    return folder


def test_run_leaves_its_folder_and_evaluates_to_the_same_figure(ended):
    record = read_record(RunRecord, ended / "record.json")
    assert {path.name for path in ended.iterdir()} == {
        ".lock",
        "recipe.yaml",
        "data.json",
        "classes.json",
        "run.json",
        "examination.json",
        "report.html",
        "README.md",
        "metrics.jsonl",
        "last",
        "best",
        "record.json",
    }
    assert evaluate_run(ended) == record.final.test
    assert (record.chosen_by, record.best) == ("validation", record.final)
    assert [record.data[name] for name in ("train", "validation", "test")] == [1295, 142, 360]
    assert record.parameters == 75_002
    assert len(record.gradients_start) == 5


def test_run_that_has_ended_gives_its_record_again(ended):
    assert run_recipe(TINY, ended, resume=True) == read_record(RunRecord, ended / "record.json")


def test_run_over_another_is_refused_with_what_differs(ended):
    with pytest.raises(ConfigError, match="--resume auto"):
        run_recipe(TINY, ended)
    other = Recipe(model="cifar_resnet8", seed=3, training=TrainConfig(epochs=2, batch_size=256))
    with pytest.raises(ConfigError, match=r"seed: 0 → 3, training\.epochs: 1 → 2"):
        run_recipe(other, ended, resume=True)


def test_run_in_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        run_recipe(TINY, tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        run_recipe(TINY, tmp_path / "thesis.tex")


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "cifar_resnet9"},
        {"data": "digit"},
        {"options": {"norm": "x"}},
        {"options": {"num_classes": "3"}},
        {"options": {"shortcut": "A"}},
        {"options": {"depths": "[1, x]"}, "model": "resnet18"},
        {"options": {"depths": "null"}, "model": "resnet18"},
        {"options": {"widths": "[1.5]"}, "model": "mlp_resnet8"},
        {"options": {"widths": "["}, "model": "mlp_resnet8"},
        {"options": {"widths": "[64, 32]"}, "model": "mlp_resnet8", "shortcut": "A"},
        {"model": "mlp_resnet" + "9" * 5000},
        {"model": "vgg11"},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_wrong_recipe_writes_nothing(tmp_path, wrong):
    with pytest.raises(ConfigError):
        run_recipe(Recipe(**wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_options_are_yaml_values_of_the_networks_settings():
    config = recipe_config(Recipe(model="mlp_resnet8", options={"widths": "[8, 16]", "zero_init_residual": "true"}))
    assert config.widths == (8, 16)
    assert config.zero_init_residual is True


@pytest.mark.parametrize(("choice", "expected"), [("default", "A"), ("B", "B"), ("none", None)])
def test_shortcut_of_a_recipe_overrides_the_names_own(choice, expected):
    assert recipe_config(Recipe(model="cifar_resnet8", shortcut=choice)).shortcut == expected


def test_options_that_are_no_text_are_refused_with_the_remedy():
    with pytest.raises(ConfigError, match="written as text, such as 'true'"):
        Recipe(options={"zero_init_residual": True})


def test_a_run_resumes_in_a_folder_that_a_kill_left_with_a_temporary_file(tmp_path):
    (tmp_path / ".recipe.yaml.99.tmp").touch()
    assert run_recipe(TINY, tmp_path, resume=True, page=False).status == "finished"


def test_data_that_have_changed_are_refused(tmp_path, ended):
    copytree(ended, tmp_path, dirs_exist_ok=True)
    noted = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps(noted | {"sha256": "0"}))
    with pytest.raises(DataError, match="has changed"):
        evaluate_run(tmp_path)
    (tmp_path / "record.json").unlink()
    with pytest.raises(DataError, match="has changed"):
        run_recipe(TINY, tmp_path, resume=True)


def test_a_folder_taken_by_another_process_meanwhile_is_not_shared(tmp_path, monkeypatch):
    """Between the first look at the folder and the lock, another run begins and ends there."""
    original, other = Claim.check, Recipe(model="cifar_resnet8", seed=5, training=TINY.training)

    def late(claim):
        original(claim)
        monkeypatch.setattr(Claim, "check", original)
        run_recipe(other, claim.out)

    monkeypatch.setattr(Claim, "check", late)
    with pytest.raises(ConfigError):
        run_recipe(TINY, tmp_path / "run")


def test_callback_is_told_of_a_stem_that_does_not_fit_the_images(tmp_path):
    told = Notes()
    options = {"depths": "[1, 1]", "widths": "[8, 8]"}
    for number, stem in enumerate(({}, {"stem": "auto"}, {"stem": "cifar"})):
        recipe = Recipe(model="resnet18", options=options | stem, training=TINY.training)
        run_recipe(recipe, tmp_path / str(number), callback=told, page=False)
    assert told.notes == [
        "the imagenet stem leaves a map of 2×2 from images of 8 pixels; small ones are better served by "
        "stem=cifar, or stem=auto",
        "stem: cifar, chosen for images of 8 pixels",
    ]


def test_resnet_20_learns_the_digits(tmp_path):
    record = run_recipe(Recipe(), tmp_path, page=False)
    assert record.final.train.error < 0.01
    assert record.final.test.error < 0.03


def test_diverged_run_is_recorded_as_such(tmp_path):
    recipe = Recipe(model="cifar_resnet8", training=TrainConfig(epochs=1, lr=1e30))
    record = run_recipe(recipe, tmp_path)
    assert record.status == "diverged"
    assert record.final is None
    assert "became nan at step 2" in record.message
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        evaluate_run(tmp_path)


def test_evaluate_what_is_no_run_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="holds no run"):
        evaluate_run(tmp_path)


def test_differences_name_nested_settings_and_missing_ones():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "d": 4}) == ["a.b: 1 → 3", "c: 2 → None", "d: None → 4"]


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("lost.safetensors", DataError, "lost.safetensors does not exist"),
        ("runs/lost", DataError, "runs/lost does not exist"),
        ("resnet50.tv9_in1k", ConfigError, "did you mean"),
        ("cifar_resnet20", ConfigError, "no pretrained weights of"),
    ],
)
def test_weights_that_are_nowhere_are_refused(weights, error, message):
    with pytest.raises(error, match=message):
        hub_tag(Recipe(weights=weights))


def test_weights_of_the_hub_bring_their_standard(monkeypatch):
    assert hub_tag(Recipe(weights="resnet18")) == "resnet18.tv_in1k"
    data = make_data()
    colour = replace(data, train=Split(images=data.train.images.repeat(1, 3, 1, 1), labels=data.train.labels))
    monkeypatch.setattr("resnetlab.data.sources.load_data", lambda *_, standard: replace(colour, standard=standard))
    assert recipe_data(Recipe(weights="resnet18")).normalisation.mean == pytest.approx((123.675, 116.28, 103.53))
    assert recipe_data(Recipe()).normalisation.mean != pytest.approx((123.675, 116.28, 103.53))


def test_report_of_a_run_in_16_bits_counts_what_the_run_counted(tmp_path):
    training = TrainConfig(epochs=1, batch_size=256, precision="bf16")
    record = run_recipe(Recipe(model="cifar_resnet8", training=training), tmp_path)
    found = read_record(ClassificationReport, tmp_path / REPORT)
    assert found.top1_accuracy == pytest.approx(1 - record.final.test.error, abs=1e-12)
    assert found.loss == pytest.approx(record.final.test.loss, rel=1e-6)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("validation", [True, False])
def test_recipe_says_which_splits_are_used(monkeypatch, own, validation):
    data = make_data(validation=15 * own)
    monkeypatch.setattr("resnetlab.data.sources.load_data", lambda *_, **__: data)
    found = recipe_data(Recipe(validation=validation, split_seed=3))
    assert found.test is data.test
    if own or not validation:
        assert found.train is data.train
        assert found.validation is (data.validation if validation else None)
    else:
        assert found.fingerprint == hold_out(data, 3).fingerprint != hold_out(data, 4).fingerprint
        assert (len(found.train), len(found.validation)) == (87, 9)
    # What is reported stays, where there is nothing else to report.
    without_test = replace(make_data(validation=15), test=None)
    monkeypatch.setattr("resnetlab.data.sources.load_data", lambda *_, **__: without_test)
    assert recipe_data(Recipe(validation=validation)).validation is without_test.validation


def test_words_of_version_0_1_0_are_answered_with_those_of_today():
    with pytest.raises(ConfigError, match=r"test_loss.*validation chooses, test reports; say validation_loss"):
        recipe_from({"training": {"best_by": "test_loss"}}, Path("mine.yaml"))


def test_folders_are_paths_or_texts(tmp_path):
    record = run_recipe(TINY, str(tmp_path / "run"), page=False)
    assert evaluate_run(str(tmp_path / "run")) == record.final.test
    with pytest.raises(DataError, match="holds no run"):
        evaluate_run("nowhere")
