import json
import shlex

import pytest
from resnetlab.study.axes import at_depth, known_axes, read_axes

from resnetlab.cli.commands import read_command
from resnetlab.core.errors import ConfigError
from resnetlab.core.serialize import as_plain, read_record
from resnetlab.core.stats import holm, paired_interval, paired_p
from resnetlab.data.config import AugmentConfig
from resnetlab.records.study import Comparison
from resnetlab.study import AxesStudy, NoStudyCallback, plan_runs, read_config, read_study, run_study, study_command
from resnetlab.study.statistics import adjust, make_combinations, make_contrasts
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe
from tests.made import compared_run, comparison

TINY = AxesStudy(
    recipe=Recipe(
        model="cifar_resnet8",
        training=TrainConfig(epochs=1, batch_size=256, device="cpu", augment=AugmentConfig(crop_padding=0)),
    ),
    axes={"shortcut": ("A", "none"), "training.lr": ("0.05", "0.1")},
    seeds=2,
)


class Began(NoStudyCallback):
    def __init__(self):
        self.names = []

    def on_run_start(self, run, number, total):
        self.names.append(run.name)
        return super().on_run_start(run, number, total)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("axes") / "whole"
    run_study(TINY, out)
    return out


def test_every_combination_is_run_with_every_seed_and_differs_in_the_axes_alone(whole):
    study = read_study(whole)
    assert isinstance(study, Comparison)
    assert len(study.runs) == study.planned == 8
    first = study.runs[0].record.recipe
    for run in study.runs:
        recipe = run.record.recipe
        assert recipe["shortcut"] == run.values["shortcut"]
        assert recipe["training"]["lr"] == float(run.values["training.lr"])
        assert recipe["seed"] == run.seed
        same = {"shortcut": first["shortcut"], "seed": first["seed"]}
        assert {**recipe, **same, "training": {**recipe["training"], "lr": 0.05}} == first
    assert read_record(Comparison, whole / "results.json") == study


def test_finished_study_of_axes_repeats_nothing_and_more_seeds_only_add_runs(tmp_path, whole):
    import shutil

    shutil.copytree(whole, tmp_path / "copy")
    again, more = Began(), Began()
    run_study(TINY, tmp_path / "copy", again)
    assert again.names == []
    run_study(AxesStudy(recipe=TINY.recipe, axes=TINY.axes, seeds=3), tmp_path / "copy", more)
    assert more.names == ["A-0.05-seed2", "A-0.1-seed2", "none-0.05-seed2", "none-0.1-seed2"]
    with pytest.raises(ConfigError, match=r"axes\.shortcut"):
        run_study(AxesStudy(recipe=TINY.recipe, axes={**TINY.axes, "shortcut": ("B",)}, seeds=3), tmp_path / "copy")


def test_command_of_a_study_of_axes_makes_the_same_study(whole):
    odd = AxesStudy(
        recipe=Recipe(model="mlp_resnet8", seed=4, options={"norm": "layer"}),
        axes={
            "options.widths": ("[64]", "[64, 32]"),
            "depth": ("8", "9"),
            "training.max_steps": ("5", "null"),
            "data": ("digits", "idx:my folder"),
        },
        seeds=5,
    )
    for config in (TINY, odd, read_config(whole)):
        words = shlex.split(study_command(config))
        assert words[:2] == ["resnetlab", "study"]
        command = read_command(words[1:])
        assert command.config == config
    assert study_command(TINY) == (
        "resnetlab study --out STUDY --axis shortcut=A,none --axis training.lr=0.05,0.1 --model cifar_resnet8 "
        "--epochs 1 --batch-size 256 --crop-padding 0 --device cpu --seeds 2"
    )


def test_axes_of_flags_stand_beside_those_of_the_file_or_in_their_place(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(
        "model: cifar_resnet8\noptions: {norm: group}\nseeds: 4\n"
        "axes:\n  shortcut: [A, B]\n  training.lr: [0.1, 1e-3]\n"
    )
    plain = read_command(["study", str(file)]).config
    assert plain.axes == {"shortcut": ("A", "B"), "training.lr": ("0.1", "0.001")}
    assert (plain.seeds, plain.recipe.model, plain.recipe.options) == (4, "cifar_resnet8", {"norm": "group"})
    words = ["--axis", "shortcut=none,C", "--axis", "depth=8,20", "--seeds", "2", "--epochs", "3"]
    changed = read_command(["study", str(file), *words]).config
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
        read_command(["study", str(tmp_path / "s.yaml")]).config  # noqa: B018


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
    ("axes", "message"),
    [
        ({}, "one or more"),
        ({"lr": ("0.1",)}, "'training.lr'"),
        ({"training.lrr": ("0.1",)}, "'training.lr'"),
        ({"seed": ("1",)}, "--seeds"),
        ({"options": ("1",)}, "unknown axis"),
        ({"options.": ("1",)}, "unknown axis"),
        ({"options.a.b": ("1",)}, "unknown axis"),
        ({"depth": ()}, "one value or more"),
        ({"depth": ("8", "8")}, "all different"),
        ({"depth": tuple(map(str, range(99))), "training.lr": tuple(map(str, range(99)))}, "at most"),
        ({"depth": ("eight",)}, "a whole number"),
        ({"model": ("vgg", "cifar_resnet8"), "depth": ("8",)}, "a name with a depth"),
        ({"training.lr": ("-1",)}, "no run at training.lr=-1"),
        ({"training.lr": ("fast",)}, "a number"),
        ({"training.schedule": ("cosine", "step")}, "milestones"),
        ({"depth": ("8", "9")}, "cifar_resnet8 and cifar_resnet14"),
        ({"options.nrom": ("batch",)}, "norm"),
        ({"shortcut": ("A", "none"), "options.zero_init_residual": ("true",)}, "need a shortcut"),
    ],
    ids=str,
)
def test_study_with_an_impossible_combination_is_refused_before_anything_is_written(tmp_path, axes, message):
    with pytest.raises(ConfigError, match=message):
        run_study(AxesStudy(axes=axes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_field_of_the_recipe_is_an_axis():
    names = set(known_axes())
    assert {"model", "shortcut", "weights", "data", "decode.image_size", "training.augment.flip", "depth"} <= names
    plain = as_plain(Recipe())
    for name in names - {"depth"}:
        inner = plain
        for part in name.split("."):
            inner = inner[part]


def test_depth_is_the_number_in_the_name():
    names = {"cifar_resnet20": "cifar_resnet56", "resnext50_32x4d": "resnext56_32x4d", "vgg19_bn": "vgg56_bn"}
    assert {name: at_depth(name, "56") for name in names} == names
    both = AxesStudy(axes={"depth": ("8", "14"), "model": ("cifar_resnet20", "cifar_plain20")}, seeds=1)
    assert [run.recipe.model for run in plan_runs(both)] == [
        "cifar_resnet8",
        "cifar_plain8",
        "cifar_resnet14",
        "cifar_plain14",
    ]


def test_folders_of_odd_values_are_names_and_all_different():
    values = ("idx:/a/b", "idx:/a_b", "..", ".", "ä", "x" * 300, "x" * 301, "a b", "a-b", "a_b")
    names = [run.name for run in plan_runs(AxesStudy(axes={"data": values}, seeds=1))]
    assert len(set(names)) == len(values)
    assert all(len(name) < 100 and "/" not in name and not name.startswith(".-") for name in names)


ERRORS = {("a", "1"): [0.5, 0.52, 0.55], ("a", "2"): [0.1, None, 0.16], ("b", "1"): [0.4, 0.44, 0.47], ("b", "2"): []}
AXES = {"x": ("a", "b"), "y": ("1", "2")}


def made_runs():
    return [
        compared_run(dict(zip(AXES, place, strict=True)), seed, error)
        for place, errors in ERRORS.items()
        for seed, error in enumerate(errors)
    ]


def test_combinations_count_seeds_and_runs_that_diverged():
    cells = make_combinations(made_runs())
    assert [tuple(cell.values.values()) for cell in cells] == list(ERRORS)[:3]
    assert [(cell.train_error.n, cell.diverged) for cell in cells] == [(3, 0), (2, 1), (3, 0)]
    assert cells[1].train_error.mean == pytest.approx(0.13)


def test_contrasts_are_paired_by_seed_against_the_first_value_of_each_axis():
    found = make_contrasts(made_runs(), AXES)
    assert [(c.axis, c.first, c.value, c.others) for c in found] == [
        ("x", "a", "b", {"y": "1"}),
        ("y", "1", "2", {"x": "a"}),
    ]
    pairs = [([0.4, 0.44, 0.47], [0.5, 0.52, 0.55]), ([0.1, 0.16], [0.5, 0.55])]
    for contrast, pair in zip(found, pairs, strict=True):
        assert contrast.train_error.student == paired_interval(*pair)
        assert contrast.train_error.p == paired_p(*pair)
    assert [c.train_error.adjusted for c in found] == holm([paired_p(*pair) for pair in pairs])
    assert [c.test_error.adjusted for c in found] == holm([c.test_error.p for c in found])


def test_what_no_seed_finished_has_no_difference_and_one_seed_no_p():
    runs = [compared_run({"x": x}, 0, error) for x, error in (("a", 0.5), ("b", None), ("c", 0.3))]
    lost, one = make_contrasts(runs, {"x": ("a", "b", "c")})
    assert lost.test_error is None
    assert (one.test_error.student.n, one.test_error.p, one.test_error.adjusted) == (1, None, None)
    assert not one.test_error.significant
    assert adjust([None]) == [None]


def test_record_of_a_study_of_axes_is_read_again(tmp_path):
    from resnetlab.core.serialize import write_record

    write_record(tmp_path / "results.json", comparison())
    assert read_record(Comparison, tmp_path / "results.json") == comparison()
    assert "contrasts" in json.loads((tmp_path / "results.json").read_text())
