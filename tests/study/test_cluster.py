"""What is said of ``--ray`` before any Ray is there: by users who have no extra, or ask for two things at once."""

import os
import sys

import pytest

from resnetlab.cli import main
from resnetlab.core.errors import ConfigError, MissingExtraError
from resnetlab.study import run_study
from resnetlab.study.cluster import check_ray
from resnetlab.study.driver import _gpus, _waiting
from tests.study.test_workers import CONFIG


@pytest.fixture
def no_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("address", ["local", "auto", "127.0.0.1:6379"])
def test_without_the_extra_one_line_says_what_to_install(tmp_path, capsys, address):
    assert main(["study", "--out", str(tmp_path / "study"), "--ray", address]) == MissingExtraError.exit_code == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: study --ray needs ray, which does not load (")
    assert "pip install 'resnetlab[ray]'" in line
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("workers", [["--workers", "2"], ["--workers=2"], ["--workers", "auto"]])
def test_ray_and_workers_are_not_given_together(tmp_path, capsys, workers):
    assert main(["study", "--out", str(tmp_path / "study"), "--ray", "local", *workers]) == 2
    assert "--ray and --workers both say who does the runs; give one of them" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="workers=2 is not possible: it must be left out with ray"):
        run_study(CONFIG, tmp_path / "study", workers=2, ray="local")
    assert not (tmp_path / "study").exists()


def test_ray_without_address_by_a_client_or_under_torchrun_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="--ray names no address; give HOST:PORT, auto for"):
        check_ray("")
    with pytest.raises(ConfigError, match="clients of Ray are not supported; give HOST:PORT"):
        check_ray("ray://127.0.0.1:10001")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="without torchrun"):
        check_ray("local")


def test_nothing_is_told_to_anyone_outside(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with pytest.raises(MissingExtraError):
        check_ray("local")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_run_has_a_gpu_where_it_wants_one_or_takes_what_there_is():
    assert [_gpus(device, {"CPU": 4, "GPU": 2}) for device in ("cpu", "auto", "cuda")] == [0, 1, 1]
    assert [_gpus(device, {"CPU": 4}) for device in ("cpu", "auto", "cuda")] == [0, 0, 1]


def test_what_is_waited_for_is_named():
    class Ray:
        @staticmethod
        def cluster_resources():
            return {"CPU": 4.0}

    assert "none of the 3 runs that it was given: its machines have 4 CPUs and 0 GPUs" in _waiting(Ray, 3, [])
    assert (
        _waiting(Ray, 0, ["a (process 1 on here)"]) == "waiting for runs that other processes do: a (process 1 on here)"
    )
