import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from resnetlab.cli.progress import (
    JsonProgress,
    QuietProgress,
    StudyProgress,
    TrainingProgress,
    epoch_line,
    make_progress,
    progress_of,
    time_left,
    train_error,
)
from resnetlab.core.errors import ConfigError
from resnetlab.records.run import EpochRecord, Metrics
from resnetlab.study import Study, plan_runs
from resnetlab.train.callbacks import StepStats
from tests.made import run_record

EPOCH = EpochRecord(
    epoch=1,
    learning_rate=0.1,
    running_loss=2.0,
    train=Metrics(loss=1.0, error=0.5, n=10),
    test=Metrics(loss=1.5, error=0.6, n=5),
    seconds=3.0,
)
PULSE = StepStats(loss=0.75, error=0.25, images_per_second=1234.5)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def watch(clock: Clock, seconds_a_step: float, steps: int = 10, first: int = 1) -> None:
    with TrainingProgress(clock) as progress:
        for step in range(first, steps + 1):
            progress.on_step(step, steps, PULSE if step == 2 else None)
            clock.now += seconds_a_step


def test_long_epoch_speaks_every_30_seconds_and_a_short_one_does_not(capsys):
    watch(Clock(), 11.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "epoch 1  step 4/10  loss 0.7500  accuracy 75.0%  1,234 images/s  0:01:06 left",
        "epoch 1  step 7/10  loss 0.7500  accuracy 75.0%  1,234 images/s  0:00:33 left",
        "epoch 1  step 10/10  loss 0.7500  accuracy 75.0%  1,234 images/s  0:00:00 left",
    ]
    watch(Clock(), 2.9)
    assert capsys.readouterr().err == ""


def test_line_of_an_epoch_puts_the_next_one_off_and_names_the_epoch(capsys):
    clock = Clock()
    with TrainingProgress(clock) as progress:
        for step in range(5, 9):  # a run that was resumed
            progress.on_step(step, 10, None)
            clock.now += 20
            if step == 5:
                progress.on_epoch(EPOCH, 2)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1/2  train loss 1.0000 error 50.00%  test loss 1.5000 error 60.00%  3.0 s",
        "epoch 2/2  step 8/10  0:00:40 left",
    ]


def on_a_terminal(monkeypatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(
        "resnetlab.cli.progress.Console",
        lambda **_: Console(file=written, force_terminal=True, width=140, color_system=None),
    )
    return written


def test_bar_shows_percent_epoch_loss_accuracy_speed_and_times(monkeypatch, capsys):
    written = on_a_terminal(monkeypatch)
    with TrainingProgress() as progress:
        progress.on_step(1, 4, None)
        progress.on_epoch(EPOCH, 2)
        progress.on_step(3, 4, PULSE)
        progress.progress.refresh()
    frame = written.getvalue()
    for part in ("75 %", "epoch 2/2", "loss 0.7500", "accuracy 75.0%", "1,234 images/s", "0:00:0", "left"):
        assert part in frame
    assert epoch_line(EPOCH, 2) in frame
    assert capsys.readouterr().err == ""


def test_epoch_without_an_evaluation_of_the_training_set_shows_the_running_figures():
    bare = replace(EPOCH, train=None)
    assert epoch_line(bare, 2).startswith("epoch 1/2  running loss 2.0000  test loss")
    assert "running loss 2.0000 error 40.00%  test" in epoch_line(replace(bare, running_error=0.4), 2)
    assert (train_error(EPOCH), train_error(bare)) == ("train error 50.00%", "running loss 2.0000")


def test_json_lines_are_a_note_the_epochs_and_the_result_and_nothing_else(capsys, tmp_path):
    record = run_record(0.5)
    with make_progress(False, True) as progress:
        progress.on_note('a "note"\nof two lines')
        progress.on_step(1, 2, PULSE)
        progress.on_epoch(EPOCH, 2)
        progress.on_result(record, tmp_path)
        progress.on_result(run_record(None), tmp_path)
    captured = capsys.readouterr()
    events = [json.loads(line) for line in captured.out.splitlines()]
    assert [event["event"] for event in events] == ["note", "epoch", "result", "result"]
    assert events[0]["text"] == 'a "note"\nof two lines'
    assert (events[1]["epochs"], events[1]["epoch"], events[1]["test"]["error"]) == (2, 1, 0.6)
    assert (events[2]["status"], events[2]["test"]["n"], events[2]["folder"]) == ("finished", 50, str(tmp_path))
    assert (events[3]["status"], events[3]["test"]) == ("diverged", None)
    assert "became nan" in events[3]["message"]
    assert captured.err == ""


def test_quiet_says_the_result_alone(capsys, tmp_path):
    with make_progress(True, False) as progress:
        progress.on_note("a note")
        progress.on_step(1, 2, PULSE)
        progress.on_epoch(EPOCH, 2)
        assert capsys.readouterr() == ("", "")
        progress.on_result(run_record(0.5), tmp_path)
    assert "accuracy 75.00%" in capsys.readouterr().out


def test_make_progress_gives_what_the_flags_ask_for():
    assert type(make_progress(False, False)) is TrainingProgress
    assert type(make_progress(True, False)) is QuietProgress
    assert type(make_progress(False, True)) is JsonProgress
    with pytest.raises(ConfigError, match="exclude each other"):
        make_progress(True, True)


def test_progress_of_work_says_a_line_every_ten_seconds(capsys):
    clock = Clock()
    with progress_of("reading images", clock) as on_progress:
        for done in range(0, 60, 10):
            on_progress(done, 50)
            clock.now += 6
    assert capsys.readouterr().err.splitlines() == [
        "reading images: 20/50 (40%), 0:00:18 left",
        "reading images: 40/50 (80%), 0:00:06 left",
    ]


def test_bar_of_work_comes_after_two_seconds(monkeypatch):
    for seconds, shown in ((0.5, False), (1.5, True)):
        written, clock = on_a_terminal(monkeypatch), Clock()
        with progress_of("reading images", clock) as on_progress:
            for done in range(1, 4):
                on_progress(done, 4)
                clock.now += seconds
        assert ("reading images" in written.getvalue()) == shown


def test_time_left_goes_on_like_what_is_done():
    assert time_left(25, 100, 60.0) == "0:03:00"
    assert time_left(0, 100, 60.0) == "unknown time"


def test_train_with_json_and_tensorboard(run, tmp_path):
    words = ("train", "--model", "mlp_resnet8", "--epochs", "2", "--out")
    code, out, errors = run(*words, tmp_path / "run", "--json", "--log", "tensorboard")
    assert (code, errors) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["epoch", "epoch", "result"]
    assert events[-1]["test"] == events[-2]["test"]
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    code, out, errors = run(*words, tmp_path / "other", "--quiet")
    assert (code, errors) == (0, "")
    assert out.startswith("test loss")


DEPTHS = Study(axes={"shortcut": ("none", "default"), "depth": ("8",)}, seeds=2)
AXES = Study(axes={"shortcut": ("A", "none"), "training.lr": ("0.1",)}, seeds=2)


def walk(progress: StudyProgress, config) -> None:
    """Two runs of four had ended, one ends here and diverges, one elsewhere."""
    planned = plan_runs(config)
    progress.on_plan(planned, {run.name: run_record(0.5) for run in planned[:2]})
    progress.live.refresh()
    progress.on_run_start(planned[2], 3, 4).on_step(1, 2, None)
    progress.on_run_end(planned[2], run_record(None))
    progress.on_found(planned[3], 4, 4, run_record(0.3))


def test_table_on_a_terminal_fills_while_runs_end(monkeypatch, capsys):
    written = io.StringIO()
    monkeypatch.setattr(
        "resnetlab.cli.progress.Console",
        lambda **_: Console(file=written, force_terminal=True, width=140, color_system=None),
    )
    with StudyProgress() as progress:
        walk(progress, AXES)
        progress.live.refresh()
    lines = [" ".join(line.split()) for line in written.getvalue().splitlines()]
    assert any("shortcut training.lr done mean training error mean test error" in line for line in lines)
    assert any("A 0.1 1/2 50.00% 25.00%" in line for line in lines)
    assert any("A 0.1 2/2 (1 diverged) 50.00% 25.00%" in line for line in lines)
    assert any("none 0.1 2/2 40.00% 20.00%" in line for line in lines)
    assert any("[3/4] shortcut A, training.lr 0.1, seed 1" in line for line in lines)
    assert capsys.readouterr().err == ""


def test_runs_at_one_time_are_told_by_their_own_names_and_add_up(capsys):
    planned = plan_runs(DEPTHS)
    with StudyProgress() as progress:
        progress.on_plan(planned, {planned[0].name: run_record(0.5)})
        both = [progress.on_run_start(planned[number], number + 1, 4) for number in (1, 2)]
        both[0].on_step(1, 2, None)
        both[1].on_step(1, 4, None)
        (task,) = progress.progress.tasks
        assert (task.completed, task.total) == (1.75, 4)
        progress.on_run_end(planned[1], run_record(0.3))
        progress.on_run_end(planned[2], run_record(0.3))
    first, second = capsys.readouterr().err.splitlines()
    assert (first[:5], second[:5]) == ("[2/4]", "[3/4]")


def test_without_a_terminal_each_run_is_a_line_those_of_other_workers_too(capsys):
    with StudyProgress() as progress:
        walk(progress, DEPTHS)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("[3/4] kind plain, depth 8, seed 1  the loss became nan")
    assert second == "[4/4] kind residual, depth 8, seed 1  train error 30.00%  test error 15.00%  2.0 s"
