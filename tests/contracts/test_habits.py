"""What people type from habit of other projects works, or is answered with the sentence that helps: docs/habits.md."""

import re
import shlex
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import resnetlab
from resnetlab.cli import main
from resnetlab.models.weights import export_weights
from tests.conftest import ROOT

ROW = re.compile(r"^\| ([\w ]*) ?\| `(.+?)` \| (.+) \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "habits.md").read_text())


def rows() -> list[object]:
    found, project = [], ""
    for named, typed, answer in ROWS:
        project = named.strip() or project
        found.append(pytest.param(typed, answer.replace("`", ""), id=f"{project}: {typed}"))
    return found


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(3, 32, 32), 0


@pytest.fixture(scope="module")
def names() -> dict[str, object]:
    """What the document says of the names in its table; a network is made anew for each row."""
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(16) % 2
    data = TensorDataset(images, labels)
    own = [{"image": image, "label": int(label)} for image, label in data]
    public = {name: getattr(resnetlab, name) for name in resnetlab.__all__}
    return public | {
        "resnetlab": resnetlab,
        "torch": torch,
        "nn": nn,
        "DataLoader": DataLoader,
        "images": images[:2] / 255,
        "train_set": data,
        "test_set": data,
        "rows": own,
        "stream": Stream(),
        "theirs": export_weights(resnetlab.create_model("resnet18"), "torchvision"),
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(("typed", "answer"), rows())
def test_what_is_typed_from_habit_works_or_is_answered(names, typed, answer, capsys):
    if typed.startswith("resnetlab "):
        assert main(shlex.split(typed)[1:]) == 2
        assert answer in capsys.readouterr().err
        return
    code = compile(typed, "docs/habits.md", "exec")
    here = names | {"net": resnetlab.create_model("resnet18", num_classes=10)}
    if answer == "works" or answer.startswith("works: "):
        exec(code, here)
        return
    with pytest.raises((AttributeError, RuntimeError, resnetlab.core.errors.ResNetLabError)) as answered:
        exec(code, here)
    assert answer in str(answered.value)


def test_the_table_is_of_five_projects_and_has_works_and_answers():
    assert {named.strip() for named, *_ in ROWS} >= {"torchvision", "timm", "Lightning", "fastai", "Hugging Face"}
    works = [answer.startswith("works") for *_, answer in ROWS]
    assert min(sum(works), len(works) - sum(works)) >= 15
    assert len(ROWS) == (ROOT / "docs" / "habits.md").read_text().count("\n| ") - 1


def test_maps_and_logits_have_the_shapes_that_are_told(names):
    images = names["images"]
    maps = resnetlab.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4))(images)
    assert [tuple(one.shape) for one in maps] == [(2, 64, 8, 8), (2, 128, 4, 4), (2, 256, 2, 2), (2, 512, 1, 1)]
    assert resnetlab.create_model("resnet18", num_classes=0, global_pool="")(images).shape == (2, 512, 1, 1)


RECIPE = resnetlab.Recipe(model="cifar_resnet8", training=resnetlab.TrainConfig(epochs=1, max_steps=2))


def test_paths_of_a_run_may_be_text(tmp_path):
    run = str(tmp_path / "run")
    record = resnetlab.run_recipe(RECIPE, run)
    assert resnetlab.evaluate_run(run) == record.final.test
    assert not resnetlab.load_weights(resnetlab.create_model("cifar_resnet8", in_chans=1), f"{run}/last").missing
    again = resnetlab.run_recipe(f"{run}/recipe.yaml", f"{run}-again", page=False)
    assert again.final.test == record.final.test


def test_paths_of_a_study_of_images_and_of_a_fit_may_be_text(tmp_path):
    study = resnetlab.Study(recipe=replace(RECIPE, validation=False), axes={"training.lr": ("0.1", "0.2")}, seeds=2)
    assert len(resnetlab.run_study(study, str(tmp_path / "study")).runs) == 4
    net, data = resnetlab.create_model("cifar_resnet8", in_chans=1), resnetlab.load_data("digits")
    resnetlab.fit(net, data, epochs=1, max_steps=2, out=str(tmp_path / "fit"))
    assert (tmp_path / "fit" / "last").is_dir()
    Image.new("L", (8, 8)).save(tmp_path / "own.png")
    found = resnetlab.diagnose(net, data, "cam", image=[str(tmp_path / "own.png")])
    assert [one.name for one in found.net.cams] == ["own.png"]
