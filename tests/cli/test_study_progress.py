import io

from rich.console import Console

from resnetlab.cli.study_progress import StudyProgress
from resnetlab.study import Study, plan_runs
from tests.made import run_record

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


def test_without_a_terminal_each_run_is_a_line_those_of_other_workers_too(capsys):
    with StudyProgress() as progress:
        walk(progress, DEPTHS)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("[3/4] kind plain, depth 8, seed 1  the loss became nan")
    assert second == "[4/4] kind residual, depth 8, seed 1  train error 30.00%  test error 15.00%  2.0 s"
