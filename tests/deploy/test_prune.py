"""A run's network without blocks: the smaller net in the folder is the one that surgery makes, to the bit."""

import json
from dataclasses import replace
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch

from resnetlab import load
from resnetlab.core.errors import ConfigError, DataError
from resnetlab.deploy.export import ExportConfig, export
from resnetlab.deploy.prune import prune_run, without_blocks
from resnetlab.deploy.verify import verify
from resnetlab.models.surgery import drop_blocks
from resnetlab.models.zoo import create_model
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe, fitted_config, recipe_network
from resnetlab.train.run import evaluate_run, restored_network, run_recipe

SMALL = Recipe(
    model="cifar_resnet20",
    options={"widths": "[4,8,16]", "stem_width": "4"},
    training=TrainConfig(epochs=2, batch_size=256, max_steps=8),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    run_recipe(SMALL, out, page=False)
    return out


@pytest.mark.parametrize("blocks", [["stages.2.1"], ["stages.0.0", "stages.2.2", "stages.2.1"]])
def test_saved_net_gives_the_bits_of_the_one_in_memory(folder, tmp_path, blocks):
    net, data, _ = restored_network(folder)
    expected = drop_blocks(net, blocks).eval()
    prune_run(folder, blocks, tmp_path / "out")
    images = next(data.test.batches([torch.arange(32)])).float()
    found = load(tmp_path / "out").net
    with torch.inference_mode():
        assert torch.equal(found(images), expected(images))
        assert not torch.equal(found(images), net.eval()(images))


def test_smaller_net_is_a_bundle_that_predicts_and_is_exported_on(folder, tmp_path):
    run, found = load(folder), prune_run(folder, ["stages.2.1"], tmp_path / "out")
    smaller = load(tmp_path / "out")
    assert (smaller.classes, smaller.preprocessing) == (run.classes, run.preprocessing)
    assert smaller.results == {"split": "test", "accuracy": 1 - found.after.error, "loss": found.after.loss, "n": 360}
    assert smaller.predict(np.zeros((8, 8), np.uint8), white=16).answer in run.classes
    assert verify(tmp_path / "out")[0].n == 32
    assert "It is without stages.2.1 and was not trained since" in (tmp_path / "out" / "README.md").read_text()
    export(tmp_path / "out", tmp_path / "again", ExportConfig(to=("pt2",), golden=2))


def test_figures_are_those_of_the_run_and_of_the_smaller_net(folder, tmp_path):
    found = prune_run(folder, ["stages.2.2", "stages.1.1", "stages.2.2"], tmp_path / "out")
    assert found.blocks == ["stages.1.1", "stages.2.2"]
    assert found.before == evaluate_run(folder)
    assert found.after.n == found.before.n == 360
    # Two 3x3 convolutions and two norms of each block.
    lost = sum(2 * 9 * width**2 + 4 * width for width in (8, 16))
    assert found.parameters_before - found.parameters_after == lost
    _, data, recipe = restored_network(folder)
    images = torch.cat([images for images, _ in batches(data, recipe)])
    with torch.inference_mode():
        wrong = load(tmp_path / "out").net(images).argmax(1) != data.test.labels
    assert found.after.error == pytest.approx(wrong.double().mean().item(), abs=1e-12)


def batches(data, recipe):
    from resnetlab.train.prepare import evaluation_loaders

    return evaluation_loaders(data, recipe.training, torch.device("cpu"))["test"].in_order()


def test_recipe_makes_the_smaller_net_and_starts_from_its_weights(folder, tmp_path):
    recipe = prune_run(folder, ["stages.2.1"], tmp_path / "out").recipe
    _, data, _ = restored_network(folder)
    saved = load(tmp_path / "out").net
    assert recipe.options["depths"] == "[3, 3, 2]"
    assert fitted_config(recipe, data) == saved.config
    net, _ = recipe_network(recipe, data)
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in net.state_dict().items())
    record = run_recipe(replace(recipe, training=SMALL.training), tmp_path / "on", page=False)
    assert record.status == "finished"


def test_best_epoch_is_pruned_where_asked(folder, tmp_path):
    copytree(folder, tmp_path / "run")
    rmtree(tmp_path / "run" / "best")
    # The last epoch is the best one of this run: here another one's weights are.
    other = replace(SMALL, training=replace(SMALL.training, max_steps=1))
    run_recipe(other, tmp_path / "other", page=False)
    copytree(tmp_path / "other" / "best", tmp_path / "run" / "best")
    for which in ("best", "last"):
        prune_run(tmp_path / "run", ["stages.2.1"], tmp_path / which, which)
        expected = drop_blocks(restored_network(tmp_path / "run", which)[0], ["stages.2.1"]).state_dict()
        found = load(tmp_path / which).net.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert not torch.equal(found["head.weight"], load(tmp_path / "best").net.state_dict()["head.weight"])


def test_fully_connected_net_is_pruned_to_a_depth_that_it_has(tmp_path):
    training = replace(SMALL.training, max_steps=1)
    run_recipe(Recipe(model="mlp_resnet9", training=training), tmp_path / "run", page=False)
    found = prune_run(tmp_path / "run", ["stages.0.1"], tmp_path / "out")
    assert found.recipe.options == {"depth": "7"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["resnetlab"]["depth"] == 7


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (["stages.2.7"], r"unknown block 'stages.2.7'.*that can go, each alone: stages.0.0, .*stages.2.2\)"),
        (["stages.2.1", "head"], r"unknown block 'head'.*stages.2.2\)"),
        (["stages.1.0"], r"stages.1.0 cannot be dropped: it changes the shape.*stages.1.1, stages.1.2, stages.2.1"),
        (["stages.0.0", "stages.0.1", "stages.0.2"], "each alone"),
        ([], "--without stages.2.1"),
    ],
)
def test_blocks_that_cannot_go_are_refused_with_those_that_can(folder, tmp_path, blocks, message):
    with pytest.raises(ConfigError, match=message):
        prune_run(folder, blocks, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_many_blocks_are_not_all_named():
    with pytest.raises(ConfigError, match=r"stages.0.11 and 40 more\)$"):
        without_blocks(create_model("cifar_resnet110", device="meta"), ["stages.9.9"])


def test_place_that_is_taken_and_folder_without_a_run_are_refused(folder, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for taken, words in (("file", "is a file"), ("full", "is not empty")):
        with pytest.raises(ConfigError, match=f"{taken} {words}"):
            prune_run(folder, ["stages.2.1"], tmp_path / taken)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    with pytest.raises(DataError, match="holds no run"):
        prune_run(tmp_path / "full", ["stages.2.1"], tmp_path / "out")
