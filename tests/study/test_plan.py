import pytest
import torch

from resnetlab.core.errors import ConfigError
from resnetlab.models.zoo import create_model, model_config
from resnetlab.study import Study, plan_runs, run_study
from resnetlab.study.plan import at_depth
from resnetlab.train.recipe import Recipe, recipe_config

BOTH = ("none", "default")


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("cifar_resnet20", {"14": ("cifar_plain14", "cifar_resnet14")}),
        ("resnet34", {"18": ("plain18", "resnet18"), "34": ("plain34", "resnet34")}),
        ("mlp_resnet34", {"9": ("mlp_plain9", "mlp_resnet9")}),
    ],
)
def test_nets_without_and_with_shortcuts_are_those_that_the_zoo_names(model, names):
    planned = plan_runs(Study(recipe=Recipe(model=model), axes={"shortcut": BOTH, "depth": tuple(names)}, seeds=1))
    found = {(run.words["depth"], run.words["kind"]): recipe_config(run.recipe) for run in planned}
    for depth, (plain, residual) in names.items():
        assert found[depth, "plain"] == model_config(plain)
        assert found[depth, "residual"] == model_config(residual)


def test_plain_net_has_the_initial_weights_of_the_name_in_the_zoo():
    ours, named = create_model("cifar_resnet8", shortcut=None).state_dict(), create_model("cifar_plain8").state_dict()
    assert ours.keys() == named.keys()
    assert all(torch.equal(ours[name], named[name]) for name in named)


def test_runs_are_planned_seed_by_seed_and_named_by_kind_and_depth():
    planned = plan_runs(Study(axes={"shortcut": BOTH, "depth": ("8", "14")}, seeds=2))
    assert [run.name for run in planned[:4]] == [
        "plain-8-seed0",
        "plain-14-seed0",
        "residual-8-seed0",
        "residual-14-seed0",
    ]
    assert {run.seed for run in planned[4:]} == {1}
    assert planned[1].label == "kind plain, depth 14, seed 0"
    others = plan_runs(Study(axes={"shortcut": ("none", "B"), "depth": ("8",)}, seeds=1))
    assert [run.name for run in others] == ["none-8-seed0", "B-8-seed0"]


def test_starts_near_zero_are_given_to_residual_nets_alone():
    recipe = Recipe(model="mlp_resnet8", options={"scale_residual": "true", "norm": "layer"})
    study = Study(recipe=recipe, axes={"shortcut": BOTH, "training.lr": ("0.1",)}, seeds=1)
    assert [run.recipe.options for run in plan_runs(study)] == [
        {"norm": "layer"},
        {"scale_residual": "true", "norm": "layer"},
    ]


def test_depth_is_the_number_in_the_name():
    names = {"cifar_resnet20": "cifar_resnet56", "resnext50_32x4d": "resnext56_32x4d", "vgg19_bn": "vgg56_bn"}
    assert {name: at_depth(name, "56") for name in names} == names
    both = Study(axes={"depth": ("8", "14"), "model": ("cifar_resnet20", "cifar_plain20")}, seeds=1)
    assert [run.recipe.model for run in plan_runs(both)] == [
        "cifar_resnet8",
        "cifar_plain8",
        "cifar_resnet14",
        "cifar_plain14",
    ]


def test_folders_of_odd_values_are_names_and_all_different():
    values = ("idx:/a/b", "idx:/a_b", "..", ".", "ä", "x" * 300, "x" * 301, "a b", "a-b", "a_b")
    names = [run.name for run in plan_runs(Study(axes={"data": values}, seeds=1))]
    assert len(set(names)) == len(values)
    assert all(len(name) < 100 and "/" not in name and not name.startswith(".-") for name in names)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"depth": ("eight",)}, "a whole number"),
        ({"model": ("vgg", "cifar_resnet8"), "depth": ("8",)}, "a name with a depth"),
        ({"training.lr": ("-1",)}, "no run at training.lr=-1"),
        ({"training.lr": ("fast",)}, "a number"),
        ({"training.schedule": ("cosine", "step")}, "milestones"),
        ({"depth": ("8", "9")}, "cifar_resnet8 and cifar_resnet14"),
        ({"options.nrom": ("batch",)}, "norm"),
        ({"shortcut": ("A", "none"), "options.zero_init_residual": ("true",)}, "need a shortcut"),
        ({"model": ("mlp_resnet8",), "shortcut": ("A",), "options.widths": ("[64, 32]",)}, "shortcut"),
    ],
    ids=str,
)
def test_study_with_an_impossible_combination_is_refused_before_anything_is_written(tmp_path, axes, message):
    with pytest.raises(ConfigError, match=message):
        run_study(Study(axes=axes), tmp_path / "out")
    assert not (tmp_path / "out").exists()
