"""``resnetlab predict``: which files, in which order, what a row says; killed and started again, and two ranks."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import resnetlab
from resnetlab.core.errors import ConfigError
from resnetlab.deploy.bundle import Bundle, seal
from resnetlab.deploy.engines import FILES, Predictor, open_predictor
from resnetlab.deploy.predict import Item, Settings, Sources, network_digest, predict_batches, predict_into
from resnetlab.deploy.preprocessing import Preprocessing
from tests.deploy.conftest import add_colours


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Files of three colours in ``photos``, with junk and a bad one; the working folder is around it."""
    monkeypatch.chdir(tmp_path)
    folder = add_colours(Path("photos"), count=4)
    (folder / "notes.txt").write_text("junk")
    (folder / "blue" / ".hidden.png").write_text("junk")
    (folder / "green" / "01b.png").write_bytes(b"no image")
    return folder


def paths_of(*given: str, listed=None) -> list[str]:
    return [item.path for item in Sources(given=given, listed=listed)]


def csv_rows(name: str) -> list[dict[str, str]]:
    with Path(name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_folders_files_and_patterns_in_the_order_of_the_sources(photos, tmp_path):
    inside = sorted(str(path) for path in photos.rglob("[0-9]*"))
    assert paths_of("photos") == paths_of("photos/") == inside
    assert paths_of("photos/red/01.png", "photos") == ["photos/red/01.png", *inside]
    assert paths_of("photos/*/01*.png") == [path for path in inside if "/01" in path]
    assert sorted(paths_of("photos/*")) == sorted([*inside, "photos/notes.txt"]), "a file that is named is tried"
    assert paths_of("photos/**/*") == sorted([*inside, "photos/notes.txt"])
    (photos / "a.png").write_bytes(b"")
    assert paths_of("photos")[0] == "photos/a.png", "files before folders"
    (tmp_path / "list").write_bytes(b"photos/red\r\nmissing.png\n\nphotos/blue/01.png")
    with (tmp_path / "list").open("rb") as listed:
        expected = [*(path for path in inside if "/red/" in path), "missing.png", "photos/blue/01.png"]
        for _ in range(2):
            assert paths_of("-", listed=listed) == expected
    (photos / "red" / "loop").symlink_to(photos.resolve())
    assert paths_of("photos") == ["photos/a.png", *inside], "a folder is entered once"


def test_junk_is_counted_and_what_is_no_file_is_a_row(photos):
    os.mkfifo(photos / "pipe.png")
    sources = Sources(given=("photos",))
    found = list(sources)
    assert sources.junk == {".txt": 1, "hidden": 1}
    assert Item("photos/pipe.png", "it is no file but a pipe, a socket or a device") in found


@pytest.mark.parametrize(("batch", "workers"), [(64, 1), (3, 4), (1, 2), (5, 0)])
def test_answers_are_those_of_the_loaded_network(colour_run, photos, batch, workers):
    predictor = open_predictor(colour_run)
    settings = Settings(top=2, batch_size=batch, workers=workers)
    items = list(Sources(given=("photos",)))
    batches = [items[start : start + batch] for start in range(0, len(items), batch)]
    rows = [row for some, _ in predict_batches(predictor, batches, settings) for row in some]
    assert [row.path for row in rows] == [item.path for item in items]
    good = [row for row in rows if row.error is None]
    assert [row.path for row in rows if row.error] == ["photos/green/01b.png"]
    expected = resnetlab.load(colour_run).predict([row.path for row in good], top=2)
    assert [row.prediction.classes for row in good] == [one.classes for one in expected]
    for row, one in zip(good, expected, strict=True):
        assert row.prediction.probabilities == pytest.approx(one.probabilities, abs=1e-5)


def test_a_row_in_every_format_and_on_the_terminal(run, colour_run, photos):
    pytest.importorskip("pyarrow")
    import pandas

    for name in ("rows.csv", "rows.jsonl", "rows.parquet"):
        code, out, errors = run("predict", colour_run, "photos", "--top", "2", "--out", name)
        assert (code, out) == (3, "")
        assert "13 files, 1 without an answer; passed over 2 that are no images" in errors
        assert run("predict", colour_run, "photos", "--out", f"x{name}", "--on-bad", "skip")[0] == 0
    rows = csv_rows("rows.csv")
    assert list(rows[0]) == ["path", "answer", "probability", "answer_2", "probability_2", "error"]
    lines = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    table = pandas.read_parquet("rows.parquet").to_dict("records")
    assert [list(row.values()) for row in rows] == [
        [f"{v:.6f}" if isinstance(v, float) else v or "" for v in line.values()] for line in lines
    ]
    assert [[None if v != v else v for v in row.values()] for row in table] == [list(line.values()) for line in lines]
    bad = lines[[line["path"] for line in lines].index("photos/green/01b.png")]
    assert bad["answer"] is None
    assert "it is no image" in bad["error"]
    code, out, _ = run("predict", colour_run, "photos", "--top", "2", "--json", "--on-bad", "skip")
    assert (code, [json.loads(line) for line in out.splitlines()]) == (0, lines)
    code, out, _ = run("predict", colour_run, "photos/red", "--top", "2")
    assert code == 0
    first = next(line for line in lines if line["path"] == "photos/red/00.jpg")
    assert out.splitlines()[0].split()[:2] == ["photos/red/00.jpg", first["answer"]]
    assert f"{first['probability']:.1%}" in out.splitlines()[0]


def test_names_that_are_odd_stay_readable(run, colour_run, photos):
    odd = 'photos/red/a,"b"\n\x1b[31m.png'
    Path("photos/red/01.png").rename(odd)
    Path("photos/red/02.png").rename(os.fsdecode(b"photos/red/\xff.png"))
    code, out, _ = run("predict", colour_run, "photos/red")
    assert code == 0
    assert "\x1b" not in out
    assert len(out.splitlines()) == 5
    assert run("predict", colour_run, "photos/red", "--out", "odd.csv")[0] == 0
    paths = [row["path"] for row in csv_rows("odd.csv")]
    assert odd in paths
    assert "photos/red/\\udcff.png" in paths


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("missing.png",), 3, "missing.png does not exist, and matches nothing"),
        (("photos/*.gif",), 3, "matches nothing as a pattern"),
        (("empty",), 3, "no images in empty"),
        (("photos", "--out", "x.txt"), 2, "must end in .csv, .jsonl, .parquet"),
        (("photos", "--out", "x.csv", "--json"), 2, "exclude each other"),
        (("photos", "--top", "0"), 2, "top=0"),
        (("photos", "--workers", "-1"), 2, "workers=-1"),
        (("photos", "--engine", "onnx"), 2, "engine onnx needs a bundle"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(run, colour_run, photos, words, code, message):
    Path("empty").mkdir()
    found, out, errors = run("predict", colour_run, *words)
    assert (found, out) == (code, "")
    assert message in errors
    assert not list(Path().glob("x*"))


class KilledError(Exception):
    pass


def predict(run, out, batch_size=3, sources=("photos",), top=2, die_after=None):
    """Predict into ``out``, and die as so many batches are written."""
    told = []

    def on_progress(done):
        told.append(done)
        if len(told) == die_after:
            raise KilledError

    settings = Settings(top=top, batch_size=batch_size, workers=2)
    digest = network_digest(run, "best")
    return predict_into(Path(out), open_predictor(run), digest, Sources(given=sources), settings, on_progress)


@pytest.mark.parametrize("torn", [b"", b'[["photos/blue/0', b"\x00" * 50 + b"\n", b"[[1,\n"])
def test_killed_and_started_again_the_file_is_the_same(colour_run, photos, torn):
    assert predict(colour_run, "whole.csv").resumed == 0
    with pytest.raises(KilledError):
        predict(colour_run, "cut.csv", die_after=2)
    assert not Path("cut.csv").exists()
    with Path("cut.csv.partial").open("ab") as stream:
        stream.write(torn)
    outcome = predict(colour_run, "cut.csv")
    assert (outcome.resumed, outcome.rows, outcome.bad) == (6, 13, 1)
    assert Path("cut.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert sorted(path.name for path in Path().glob("cut*")) == ["cut.csv"]
    with pytest.raises(ConfigError, match=r"cut.csv exists"):
        predict(colour_run, "cut.csv")


def test_a_file_begun_otherwise_is_not_continued(colour_run, digits_run, photos):
    with pytest.raises(KilledError):
        predict(colour_run, "cut.csv", die_after=2)
    before = Path("cut.csv.partial").read_bytes()
    for change, message in (({"top": 1}, "top 2, not 1"), ({"batch_size": 4}, "batch_size 3, not 4")):
        with pytest.raises(ConfigError, match=message):
            predict(colour_run, "cut.csv", **change)
    with pytest.raises(ConfigError, match="network"):
        predict(digits_run, "cut.csv")
    with pytest.raises(ConfigError, match="the files are not those"):
        predict(colour_run, "cut.csv", sources=("photos/red",))
    assert Path("cut.csv.partial").read_bytes() == before


def test_a_real_kill_9_loses_nothing(colour_run, photos):
    command = [sys.executable, "-m", "resnetlab", "predict", str(colour_run), "photos", "--batch-size", "1"]
    script = (
        "import os, signal, sys; from resnetlab.deploy import journal; from resnetlab.cli import main\n"
        "append, count = journal.Journal.append, [0]\n"
        "def dying(self, value):\n"
        "    append(self, value); count[0] += 1\n"
        "    if count[0] == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "journal.Journal.append = dying\n"
        "main(sys.argv[1:])"
    )
    killed = subprocess.run([sys.executable, "-c", script, *command[3:], "--out", "cut.jsonl"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(Path("cut.jsonl.partial").read_bytes().splitlines()) == 8
    for name in ("cut.jsonl", "whole.jsonl"):
        assert subprocess.run([*command, "--out", name], capture_output=True, check=False).returncode == 3
    assert Path("cut.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_two_ranks_write_the_file_of_one(colour_run, photos):
    predict(colour_run, "one.csv")
    script = (
        "import sys; from tests.deploy.test_predict import predict; from pathlib import Path\n"
        "predict(Path(sys.argv[1]), 'two.csv')"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"WORLD_SIZE": "2", "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", script, str(colour_run)], env=environment | {"RANK": str(rank)})
        for rank in range(2)
    ]
    assert [rank.wait(timeout=100) for rank in ranks] == [0, 0]
    assert Path("two.csv").read_bytes() == Path("one.csv").read_bytes()
    assert sorted(path.name for path in Path().glob("two*")) == ["two.csv"]


def test_another_process_that_writes_is_told(colour_run, photos):
    import fcntl

    with Path("cut.csv.partial").open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is writing"):
            predict(colour_run, "cut.csv")


def test_a_network_without_finite_numbers_gives_reasons(photos):
    predictor = Predictor(
        engine="made",
        classes=("a", "b"),
        preprocessing=Preprocessing(side=4, channels=3, white=255, mean=(0.0,) * 3, std=(1.0,) * 3),
        logits=lambda pixels: np.full((len(pixels), 2), np.nan, np.float32),
    )
    ((rows, _),) = predict_batches(predictor, [[Item("photos/red/01.png")]], Settings())
    assert rows[0].error == "the network gave no finite number"


def test_the_engine_onnx_loads_no_torch(photos):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    folder = Path("bundle")
    (folder / "onnx").mkdir(parents=True)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats", "axes"], ["logits"], keepdims=0),
        ],
        "mean colour",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / FILES["onnx"])
    preprocessing = Preprocessing(side=8, channels=3, white=255, mean=(0.0,) * 3, std=(1.0,) * 3)
    seal(Bundle(name="b", model="mean", classes=("red", "green", "blue"), preprocessing=preprocessing), folder)
    script = (
        "import sys; from resnetlab.cli import main\n"
        "assert main(['predict', 'bundle', 'photos/red', '--engine', 'onnx', '--out', 'rows.csv']) == 0\n"
        "assert main(['predict', 'bundle', 'photos/red', '--json']) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [row["answer"] for row in csv_rows("rows.csv")]
    assert answers == ["red"] * 4
