"""What holds for the house as a whole: light imports, the direction of imports, the documents' commands."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib

import numpy as np
import pytest

import resnetlab
from resnetlab.core.serialize import write_record
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import run_recipe
from tests.conftest import ROOT, make_data
from tests.made import diagnosis, study_diagnosis

HEAVY = {"torch", "matplotlib", "sklearn", "scipy", "numpy"}


def loaded_by(*parts: str) -> list[set[str]]:
    """What each part of a script has loaded, and those before it, in one process."""
    script = "import pathlib, sys\n" + "\n".join(
        f"{part}\nprint('loaded', *(name for name in sys.modules if '.' not in name))" for part in parts
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    found = [set(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("loaded ")]
    assert len(found) == len(parts)
    return found


LIGHT = [
    "import resnetlab; resnetlab.__version__",
    "from resnetlab import Study; Study()",
    "from resnetlab.cli import main; main(['--version'])",
    "try: main(['--help'])\nexcept SystemExit: pass",
    "try: main(['train', '--help'])\nexcept SystemExit: pass",
    "try: main(['diagnose', '--help'])\nexcept SystemExit: pass",
    "assert main(['list', 'cifar_*']) == 0",
    "assert main(['recipes']) == 0",
    "assert main(['train', '--epochs', '0']) == 2",
    "assert main(['study', '--axis', 'lr=1']) == 2",
]


def test_help_and_import_load_nothing_heavy():
    for part, loaded in zip(LIGHT, loaded_by(*LIGHT), strict=True):
        assert not loaded & HEAVY, part


def test_evaluate_loads_neither_scikit_learn_nor_the_compiler(tmp_path):
    """Of images that are not scikit-learn's own; sympy comes with torch's symbolic shapes."""
    data = make_data()
    parts = {"train": data.train, "test": data.test}
    arrays = {f"x_{name}": part.images.squeeze(1).numpy() for name, part in parts.items()}
    np.savez(tmp_path / "made.npz", **arrays, **{f"y_{name}": part.labels.numpy() for name, part in parts.items()})
    recipe = Recipe(model="cifar_resnet8", data=f"npz:{tmp_path / 'made.npz'}", training=TrainConfig(max_steps=2))
    run_recipe(recipe, tmp_path / "run", page=False)
    script = (
        "import sys; from resnetlab.cli import main\n"
        f"assert main(['evaluate', {str(tmp_path / 'run')!r}]) == 0\n"
        "assert not {'sklearn', 'scipy.stats', 'matplotlib', 'torch._dynamo', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_names_for_type_checkers_are_those_that_load():
    tree = ast.parse((ROOT / "src/resnetlab/__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.asname: node.module for node in block.body for alias in node.names}
    assert imported == resnetlab._HOME
    assert resnetlab.__all__ == sorted(["__version__", *imported])


def test_report_loads_no_torch(tmp_path):
    """Neither of a study, a run, a diagnosis nor a study's diagnosis."""
    for name, record in (("diagnosis", diagnosis()), ("study-diagnosis", study_diagnosis())):
        (tmp_path / name).mkdir()
        write_record(tmp_path / name / f"{name}.json", record)
    parts = [
        f"out = pathlib.Path({str(tmp_path)!r})\n"
        "import resnetlab.study; from resnetlab.report.study.page import write_report\n"
        "from tests.made import depth_study; write_report(depth_study(), out / 'study')",
        "import resnetlab.train.recipe; from resnetlab.report.run.page import write_run_report\n"
        "from tests.made import run; write_run_report(*run(), 'resnetlab train', out / 'run')",
        "from resnetlab.cli import main; assert main(['report', str(out / 'diagnosis')]) == 0",
        "assert main(['report', str(out / 'study-diagnosis')]) == 0",
    ]
    for part, loaded in zip(parts, loaded_by(*parts), strict=True):
        assert "matplotlib" in loaded
        assert "torch" not in loaded, part
    assert len(list(tmp_path.glob("*/report.html"))) == 4


def test_public_names_exist_and_a_wrong_one_says_what_there_is():
    for name in resnetlab.__all__:
        assert getattr(resnetlab, name) is not None
    with pytest.raises(AttributeError, match="create_model"):
        resnetlab.create_modle  # noqa: B018


def test_every_installed_requirement_is_pinned():
    """constraints.txt holds the environment to the last package."""
    from importlib.metadata import distributions

    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    installed = {d.metadata["Name"].lower().replace("_", "-"): d.version.partition("+")[0] for d in distributions()}
    needed = installed.keys() - {"resnetlab", "pip"}
    assert {name: pins.get(name) for name in needed} == {name: installed[name] for name in needed}


def test_importlinter_names_every_room():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = " ".join(contracts[0]["layers"])
    for path in (ROOT / "src" / "resnetlab").iterdir():
        if (path.suffix == ".py" or path.is_dir()) and path.stem not in ("__init__", "__pycache__"):
            assert path.stem in layers


DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (path.name, text)
        for path in DOCUMENTS
        for text in re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)
    ]


@pytest.mark.parametrize(("document", "code"), blocks("python"))
def test_python_examples_of_the_documents_run(document, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, document, "exec"), {})


def test_commands_of_the_documents_are_commands(monkeypatch):
    """Every ``resnetlab …`` is read by the parser, every ``make …`` is a target, and every script is there."""
    from resnetlab.cli.commands import read_command

    # A recipe in a command is read for real; a run that it names is not there to be read.
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("resnetlab.cli.recipe_args.read_recipe", lambda _path: Recipe())
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lines = [line for _, text in blocks("sh") for line in text.splitlines()]
    assert len(lines) > 5
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["torchrun"]:
            words = words[words.index("-m") + 1 :]
            assert words[0] == "resnetlab", line
        if words[:1] == ["make"]:
            assert all(word in targets for word in words[1:] if "=" not in word), line
        elif words[:1] and words[0].endswith("resnetlab"):
            read_command(words[1:])
        elif words[:1] == ["python"]:
            assert (ROOT / words[1]).is_file(), line
        else:
            assert words[:1] in ([], ["pip"], ["git"], ["cd"], ["open"], ["export"]), line


def test_readme_shows_what_the_demo_record_says(capsys):
    """The pasted result in the README is drawn from the record in docs/demo, and so is its image."""
    from pathlib import Path

    from resnetlab.cli.tables import print_study
    from resnetlab.study import read_results

    print_study(read_results(ROOT / "docs" / "demo" / "results.json"), Path("runs/demo/report.html"))
    assert capsys.readouterr().out in (ROOT / "README.md").read_text()
    assert "docs/demo/training-error.png" in (ROOT / "README.md").read_text()


def test_readme_says_of_the_demo_what_its_records_say():
    """The counts, the machine, and how far the same seeds end with another number of threads."""
    from resnetlab.core.stats import sample
    from resnetlab.report.table import percent
    from resnetlab.study import read_results

    text = " ".join((ROOT / "README.md").read_text().split())
    here, there = (read_results(ROOT / "docs" / "demo" / f"{name}.json") for name in ("results", "two-threads"))
    deep = {"shortcut": "none", "depth": "56"}
    plain, residual = (
        next(one.trained for one in here.conditions if one.values == deep | {"shortcut": shortcut})
        for shortcut in ("none", "default")
    )
    assert f"{plain.count} of {plain.n} plain nets of 56 layers trained, and {residual.count} of {residual.n}" in text
    (machine,) = {line_of(run.record.environment) for run in here.runs}
    assert machine in text
    ended = [
        sample([run.record.final.train.error for run in study.runs if run.values == deep and run.seed < 3])
        for study in (here, there)
    ]
    assert f"seeds 0 to 2 ended at {percent(ended[0])} % here and at {percent(ended[1])} % with two threads" in text
    other = next(one.trained for one in there.conditions if one.values == deep)
    assert f"where {other.count} of {other.n} trained as well" in text
    assert {run.record.environment["threads"] for run in there.runs} == {2}
    words = here.command.removeprefix("resnetlab study --out STUDY ")
    assert f"resnetlab study {words} --out $(DEMO)" in (ROOT / "Makefile").read_text()


def line_of(environment):
    """Where a figure was measured, as the documents say it."""
    threads = f"{environment['threads']} thread"
    return "{processor}, {system}; Python {python}, torch {torch}, ".format(**environment) + threads


def test_readme_image_is_drawn_from_the_demo_record():
    from resnetlab.report.study.figures import draw_figures
    from resnetlab.study import read_results

    drawings = draw_figures(read_results(ROOT / "docs" / "demo" / "results.json"))
    (image,) = [drawing.png for drawing in drawings if drawing.name == "training-error"]
    assert image == (ROOT / "docs" / "demo" / "training-error.png").read_bytes()
