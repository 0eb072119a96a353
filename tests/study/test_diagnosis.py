from pathlib import Path

import pytest

from resnetlab.core.errors import ConfigError
from resnetlab.diagnostics.config import DiagnosisConfig
from resnetlab.records.study import axes_in_words
from resnetlab.study import Study, plan_runs
from resnetlab.study.diagnosis import choose, read_where, study_analyses, study_diagnosis_command

DEPTHS = Study(axes={"shortcut": ("none", "default"), "depth": ("8", "14")}, seeds=2)
AXES = axes_in_words(DEPTHS.axes)
HERE = Path("runs/some study")


def test_axes_are_named_as_people_read_them():
    assert AXES == {"kind": ["plain", "residual"], "depth": ["8", "14"]}
    for axes in ({"training.lr": ["0.1", "0.2"]}, {"shortcut": ["A", "none"]}):
        assert axes_in_words(axes) == axes


def test_runs_are_chosen_by_the_values_of_axes():
    chosen = choose(plan_runs(DEPTHS), AXES, read_where(["depth=14", "kind=plain,residual"]), HERE)
    assert {run.name for run in chosen} == {f"{kind}-14-seed{n}" for kind in ("plain", "residual") for n in (0, 1)}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (["deep=14"], "did you mean 'depth'"),
        (["depth=20"], "has no depth 20; it has 8, 14"),
        (["depth"], "must be AXIS=VALUE"),
        (["=8"], "must be AXIS=VALUE"),
        (["depth=8", "depth=14"], "stands twice"),
    ],
)
def test_wrong_choice_of_runs_says_what_there_is(where, message):
    with pytest.raises(ConfigError, match=message):
        choose(plan_runs(DEPTHS), AXES, read_where(where), HERE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"what": ("signal",)}, "--what signal is not possible for a study, only gradients, residuals, lesion"),
        ({"model": "cifar_resnet20", "data": "digits"}, "--model is not possible for a study"),
        ({"plain": Path("runs/plain")}, "--plain is not possible"),
    ],
)
def test_setting_of_single_networks_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        study_analyses(DiagnosisConfig(**settings))


def test_all_stands_for_what_tells_of_trained_networks():
    assert study_analyses(DiagnosisConfig()) == ["gradients", "residuals", "lesion"]
    assert study_analyses(DiagnosisConfig(what=("lesion", "gradients"))) == ["gradients", "lesion"]


def test_command_has_what_is_not_the_default():
    config = DiagnosisConfig(what=("lesion",), images=60)
    command = study_diagnosis_command(HERE, config, {"depth": ("8", "14")})
    assert command == (
        "resnetlab diagnose 'runs/some study' --out DIAGNOSIS --where depth=8,14 --what lesion --images 60"
    )
