import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.data.config import AugmentConfig
from resnetlab.study import NoStudyCallback, StudyConfig, plan_runs, read_study, run_study, study_command
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.config import TrainConfig

TINY = StudyConfig(
    depths=(8, 14), seeds=2, training=TrainConfig(epochs=2, batch_size=128, augment=AugmentConfig(crop_padding=0))
)


class Counting(NoStudyCallback):
    """Watches a study: which runs began, and an interruption behind a step of one of them."""

    def __init__(self, stop_in: int = 0, stop_after: int = 0) -> None:
        self.began: list[str] = []
        self.stop_in, self.stop_after = stop_in, stop_after

    def on_run_start(self, run, number, total):
        assert total == 8
        self.began.append(run.name)
        stop = self.stop_after if len(self.began) == self.stop_in else 0

        class Callback(NoCallback):
            def on_step(self, step, steps, stats):
                if step == stop:
                    raise KeyboardInterrupt

        return Callback()

    def on_run_end(self, run, record):
        assert record.status == "finished"


def timeless(path: Path):
    """``results.json`` without seconds and speeds."""
    clocks = ("seconds", "images_per_second")

    def strip(value):
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key not in clocks}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("study") / "whole"
    run_study(TINY, out, Counting())
    return out


def test_study_records_every_run_of_the_grid(whole):
    study = read_study(whole)
    assert len(study.runs) == study.planned == 8
    assert [(cell.kind, cell.depth) for cell in study.cells] == [
        ("plain", 8),
        ("plain", 14),
        ("residual", 8),
        ("residual", 14),
    ]
    assert all(cell.train_error.n == 2 for cell in study.cells)
    assert [pair.depth for pair in study.pairs] == [8, 14]
    assert [verdict.kind for verdict in study.verdicts] == ["plain", "residual"]


def test_plain_and_residual_runs_differ_in_the_model_alone(whole):
    plain, residual = (
        {key: value for key, value in run.record.recipe.items() if key != "model"}
        for run in read_study(whole).runs
        if (run.depth, run.seed) == (8, 1)
    )
    assert plain == residual


@pytest.mark.parametrize(("stop_in", "stop_after"), [(1, 1), (3, 15), (8, 21)])
def test_interrupted_study_goes_on_and_gives_the_same_results(tmp_path, whole, stop_in, stop_after):
    first, second = Counting(stop_in, stop_after), Counting()
    with pytest.raises(KeyboardInterrupt):
        run_study(TINY, tmp_path / "cut", first)
    run_study(TINY, tmp_path / "cut", second)
    # The run that was cut off is the only one that began twice.
    assert [*first.began[:-1], *second.began] == [run.name for run in plan_runs(TINY)]
    assert timeless(tmp_path / "cut" / "results.json") == timeless(whole / "results.json")


def test_killed_study_goes_on_and_gives_the_same_results(tmp_path, whole, resnetlab):
    """kill -9 in the middle of a run, in a process of its own."""
    words = shlex.split(study_command(TINY))[1:]
    words[words.index("STUDY")] = str(tmp_path / "killed")
    process = subprocess.Popen(
        [sys.executable, "-m", "resnetlab", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 100
    while not (tmp_path / "killed" / "runs" / "residual-8-seed0" / "metrics.jsonl").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "results.json").exists()
    done = resnetlab(*words)
    assert done.returncode == 0, done.stderr
    assert "[1/8]" not in done.stderr
    assert timeless(tmp_path / "killed" / "results.json") == timeless(whole / "results.json")


def test_finished_study_repeats_nothing(whole):
    again = Counting()
    run_study(TINY, whole, again)
    assert again.began == []


def test_changed_settings_are_refused_with_what_differs(whole):
    changed = StudyConfig(
        depths=(8, 14), seeds=3, training=TrainConfig(epochs=2, batch_size=64, augment=AugmentConfig(crop_padding=0))
    )
    with pytest.raises(ConfigError, match=r"seeds: 2 → 3, training\.batch_size: 128 → 64"):
        run_study(changed, whole, Counting())


def test_more_seeds_only_add_runs(tmp_path, whole):
    import shutil

    shutil.copytree(whole, tmp_path / "copy")
    one = StudyConfig(depths=(8, 14), seeds=1, training=TINY.training)
    with pytest.raises(ConfigError, match="seeds: 2 → 1"):
        run_study(one, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy")
    run_study(one, tmp_path / "copy")
    again = Counting()
    run_study(TINY, tmp_path / "copy", again)
    assert all(name.endswith("seed1") for name in again.began)
    assert timeless(tmp_path / "copy" / "results.json") == timeless(whole / "results.json")


def test_depth_that_the_family_lacks_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="cifar_plain20 and cifar_plain26"):
        run_study(StudyConfig(depths=(8, 21)), tmp_path / "out", Counting())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"data": "idx:nowhere"},
        {"family": "mlp", "shortcut": "A", "options": {"widths": "[64, 32]"}, "depths": (8,)},
    ],
    ids=str,
)
def test_study_that_cannot_run_writes_nothing(tmp_path, settings):
    with pytest.raises((ConfigError, DataError)):
        run_study(StudyConfig(**settings), tmp_path / "out", Counting())
    assert not (tmp_path / "out").exists()


def test_starts_near_zero_are_given_to_residual_nets_alone():
    config = StudyConfig(family="mlp", depths=(8,), seeds=1, options={"scale_residual": "true", "norm": "layer"})
    assert [run.recipe.options for run in plan_runs(config)] == [
        {"norm": "layer"},
        {"scale_residual": "true", "norm": "layer"},
    ]


def test_data_that_have_changed_are_refused(tmp_path, whole):
    import shutil

    shutil.copytree(whole, tmp_path / "copy")
    noted = json.loads((tmp_path / "copy" / "data.json").read_text())
    (tmp_path / "copy" / "data.json").write_text(json.dumps(noted | {"sha256": "0"}))
    with pytest.raises(DataError, match="has changed"):
        run_study(TINY, tmp_path / "copy", Counting())


def test_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "x").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        run_study(TINY, tmp_path, Counting())
    with pytest.raises(ConfigError, match="is a file"):
        run_study(TINY, tmp_path / "x", Counting())


def test_reading_what_is_no_study_or_has_no_run_yet_is_a_data_error(tmp_path, whole):
    with pytest.raises(DataError, match="holds no study"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_bytes((whole / "study.json").read_bytes())
    with pytest.raises(DataError, match="no run"):
        read_study(tmp_path)


def test_reading_a_damaged_record_is_a_data_error(tmp_path, whole):
    import shutil

    shutil.copytree(whole, tmp_path / "copy")
    (tmp_path / "copy" / "runs" / "plain-8-seed0" / "record.json").write_text('{"model": 3}')
    with pytest.raises(DataError, match=r"plain-8-seed0.*delete the file"):
        read_study(tmp_path / "copy")
    with pytest.raises(DataError, match="delete the file"):
        run_study(TINY, tmp_path / "copy", Counting())
    runs = tmp_path / "copy" / "runs"
    shutil.copy(runs / "plain-14-seed0" / "record.json", runs / "plain-8-seed0" / "record.json")
    with pytest.raises(DataError, match="record of another run"):
        read_study(tmp_path / "copy")
    for text in ("[]", "{}", "null", "[" * 100_000):
        (tmp_path / "copy" / "study.json").write_text(text)
        with pytest.raises(DataError, match=r"study\.json"):
            run_study(TINY, tmp_path / "copy", Counting())


@pytest.mark.parametrize(
    "settings",
    [
        {"depths": ()},
        {"depths": (8, 8)},
        {"kinds": ("plan",)},
        {"kinds": ()},
        {"seeds": 0},
        {"seeds": 10**9},
        {"family": "cifra"},
        {"family": "mlp", "options": {"depth": "5"}},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError):
        StudyConfig(**settings)


def test_families_name_their_networks():
    names = {
        family: [run.recipe.model for run in plan_runs(StudyConfig(family=family, depths=(34,), seeds=1))]
        for family in ("imagenet", "mlp")
    }
    assert names == {"imagenet": ["plain34", "resnet34"], "mlp": ["mlp_plain34", "mlp_resnet34"]}


def test_command_of_a_study_names_what_is_not_the_default():
    config = StudyConfig(
        depths=(8, 14),
        options={"norm": "layer"},
        data="idx:my folder",
        training=TrainConfig(epochs=3, channels_last=False, augment=AugmentConfig(crop_padding=0)),
    )
    assert study_command(config) == (
        "resnetlab study --out STUDY --depths 8 14 --options norm layer --data 'idx:my folder' "
        "--epochs 3 --no-channels-last"
    )
