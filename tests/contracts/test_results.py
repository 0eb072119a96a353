"""docs/results.md says what the records beside it say; nothing in its tables is typed by hand."""

import json
from statistics import fmean, median, quantiles, stdev
from typing import Any

import pytest

from resnetlab.core.serialize import read_record
from resnetlab.records.run import RunRecord
from tests.conftest import ROOT

RESULTS = ROOT / "docs" / "results"
RUNS = sorted(RESULTS.glob("run-*.json"))


def page() -> str:
    return (ROOT / "docs" / "results.md").read_text()


def run_row(record: RunRecord) -> str:
    """A run as a row: data, network, result with what it was counted on, and its cost."""
    final, environment = record.final, record.environment
    return (
        f"| `{record.data['source']}` ({record.data['encoding']}) | {record.model} | {final.epoch} "
        f"| {100 * (1 - final.test.error):.2f} % | {final.test.n:,} | {record.recipe['seed']} "
        f"| {record.seconds:,.0f} s, {environment['threads']} threads |"
    )


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text())


def environment_line(found: dict[str, Any]) -> str:
    return (
        f"{found['processor']}, {found['cores']} cores, {found['system']}; Python {found['python']}, "
        f"torch {found['torch']}"
    )


def spread(values: dict[str, float], digits: int) -> str:
    low, middle, high = (values[key] for key in ("quartile_1", "median", "quartile_3"))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def loop_rows() -> list[str]:
    """What the loop costs with its interval, and how much faster than others it trains, as it is and tuned."""
    found = read("loop.json")
    throughput = found["throughput"]
    rows = []
    for name, one in found["overhead"].items():
        low, high = one["difference_ms_per_step"]["interval_95"]
        above = f"{one['difference_ms_per_step']['median']:.3f} ({low:.3f} to {high:.3f})"
        rows.append(f"| the loop itself, {name}: ms a step above bare PyTorch | {above} | {one['turns']} |")
    for ours, key in (("ours", "ours_over"), ("tuned", "tuned_over")):
        for name, one in (throughput[key] | throughput[f"{key}_parts"]).items():
            rows.append(f"| speed of {ours} over {name} | {spread(one, 2)} | {throughput['turns']} |")
    return [*rows, environment_line(found["environment"])]


def compile_rows() -> list[str]:
    """A network: what compiling takes, cold and warm, and how fast blocks then are beside the others."""
    found = read("compile.json")
    rows = []
    for model, one in found["models"].items():
        took = one["seconds_to_compile"]
        seconds = " | ".join(
            f"{took[name]['clock']:.1f} ({took[name]['processor']:.1f})"
            for name in ("blocks, cold", "blocks, warm", "whole, cold")
        )
        over = " | ".join(spread(one["blocks_over"][name], 2) for name in ("eager", "whole"))
        rows.append(f"| `{model}` | {seconds} | {over} | {found['turns']} |")
    return [*rows, environment_line(found["environment"])]


def checkpoint_rows() -> list[str]:
    found = read("checkpoint.json")
    said = {"wait": "what training waits for", "all": "until all is on the disk"}
    rows = [
        f"| {said[name.partition(', ')[0]]}, {name.partition(', ')[2]} | {spread(one, 2)} | {found['n']} |"
        for name, one in found["over_torch_save"].items()
    ]
    return [*rows, environment_line(found["environment"])]


def memory_rows() -> list[str]:
    found = read("memory.json")
    rows = [
        "| `{}` | {} | {:.2f} |".format(
            row["setting"],
            " | ".join(f"{row[key] / 2**20:,.0f}" for key in ("predicted", "measured", "usual_heap")),
            row["predicted"] / row["measured"],
        )
        for row in found["settings"]
    ]
    return [*rows, environment_line(found["environment"])]


def decode_rows() -> list[str]:
    found = read("decode.json")
    rows = [
        f"| {name} | {photo['median_ratio']:.1f}× | {photo['mean_difference']:.2f} "
        f"| {photo['largest_difference']:.0f} | {found['n']} |"
        for name, photo in found["photos"].items()
    ]
    return [*rows, environment_line(found["environment"])]


def feed_rows() -> list[str]:
    found = read("feed.json")
    names = {"beside": "before", "this": "as it is"}
    rows = [f"| {names[name]} | {spread(one, 1)} | {found['n']} |" for name, one in found["ms_a_batch"].items()]
    return [*rows, environment_line(found["environment"])]


def start_rows() -> list[str]:
    """A number of files: seconds of what ImageFolder does, and how many times as long each start takes."""
    found = read("start.json")
    rows = []
    for count, one in found["counts"].items():
        over, starts = one["over_image_folder"], one["starts"]
        cells = [
            f"{over[name]['median']:.1f} ({over[name]['quartile_1']:.1f} to {over[name]['quartile_3']:.1f})"
            if name in over
            else "not measured"
            for name in ("head", "second after head", "full", "second after full")
        ]
        seconds = f"{starts['ImageFolder']['processor']['median']:.3f}"
        memory = f"{starts['second after head']['mib']['median']:.0f} / {starts['ImageFolder']['mib']['median']:.0f}"
        rows.append(f"| {int(count):,} | {seconds} | {' | '.join(cells)} | {memory} | {one['turns']} |")
    return [*rows, environment_line(found["environment"])]


def probe_rows() -> list[str]:
    found = read("probe.json")
    turns = found["settings"]["turns"]
    rows = [f"| {name} | {spread(one, 2)} | {turns} |" for name, one in found["over_plain"].items()]
    return [*rows, environment_line(found["environment"])]


def startup_rows() -> list[str]:
    """A command: its CPU time over that of ``import torch``."""
    found = read("startup.json")
    rows = []
    for command, turns in found["over_import_torch"].items():
        low, middle, high = quantiles(turns, n=4, method="inclusive")
        rows.append(f"| `{command}` | {middle:.2f} ({low:.2f} to {high:.2f}) | {found['turns']} |")
    return [*rows, environment_line(found["environment"])]


def study_rows() -> list[str]:
    """What is counted of a study: now and before."""
    found = read("study.json")
    rows = []
    for what, key, scale, digits in (
        ("CPU ms a run", "run", 1e3, 0),
        ("CPU s of start, tables and page", "again", 1, 1),
        ("kB a run", "bytes_a_run", 1e-3, 0),
    ):
        now, before = (median(turn[key] for turn in found["turns"][name]) for name in ("one worker", "before"))
        rows.append(
            f"| {what} | {scale * now:,.{digits}f} | {scale * before:,.{digits}f} | {found['saved'][key]:.2f} |"
        )
    return [
        *rows,
        f"{found['runs']} runs, {len(found['turns']['before'])} turn",
        environment_line(found["environment"]),
    ]


def export_rows() -> list[str]:
    """A format: size, answers, and CPU time of an image at each batch, with how many times less than torch's."""
    found = read("export.json")
    rows = []
    for check in found["formats"]:
        name = check["name"]
        times = (
            f"{median(turns[name]):.2f} ({found['faster'][batch][name]:.2f}×)"
            for batch, turns in found["milliseconds"].items()
        )
        rows.append(
            f"| {name} | {check['bytes'] / 1000:,.0f} | {100 * check['accuracy']:.2f} "
            f"| {check['changed']} of {check['n']:,} | {check['relative']:.1e} | {' | '.join(times)} |"
        )
    return [*rows, environment_line(found["environment"])]


def serve_rows() -> list[str]:
    """A number of clients: what a request costs each server, how much less ours, and the times to an answer."""
    found = read("serve.json")
    ours, rival = (found["servers"][name] for name in ("resnetlab", "litserve"))

    def figures(clients: str, key: str, digits: int) -> str:
        return " / ".join(f"{server[clients][key]:,.{digits}f}" for server in (ours, rival))

    rows = [
        f"| {clients} | {figures(clients, 'processor_ms', 2)} | {found['processor_time_ratio'][clients]:.1f}× "
        f"| {figures(clients, 'resident_mib', 0)} | {figures(clients, 'p50_ms', 0)} | {figures(clients, 'p99_ms', 0)} |"
        for clients in ours
    ]
    return [*rows, environment_line(found["environment"])]


def predict_rows() -> list[str]:
    """Memory by the number of files, whether kills and ranks change a byte, and the speed beside timm's way."""
    found = read("predict.json")
    speed, memory = found["speed"], found["peak_bytes"]
    rows = [f"| {int(n):,} | {peak / 2**20:,.0f} MiB |" for n, peak in memory.items()]
    kills = " and ".join(f"{100 * share:.0f} %" for share in found["killed_when_done"])
    assert found["same_after_kills"] is found["same_with_two_ranks"] is True
    return [
        *rows,
        f"Killed at {kills} of the rows",
        f"{spread(speed['ours_over_timm'], 2)} times timm's, over {speed['turns']} turns",
        environment_line(found["environment"]),
    ]


def mean_errors(name: str) -> dict[str, float]:
    """The mean test error of each setting of a set over the seeds, in percent."""
    rows = [row for row in read("defaults.json")["rows"] if row["set"] == name]
    names = list(dict.fromkeys(row["setting"] for row in rows))
    return {each: 100 * fmean(row["error"] for row in rows if row["setting"] == each) for each in names}


def defaults_rows() -> list[str]:
    """A set: what the defaults reach, and the best setting of the grid, means over the seeds."""
    found, rows = read("defaults.json"), []
    for name in ("digits", "fashion", "crops", "imbalanced"):
        of_set = [row for row in found["rows"] if row["set"] == name]
        errors = mean_errors(name)
        best = min((each for each in errors if each != "defaults"), key=errors.__getitem__)
        own = [100 * row["error"] for row in of_set if row["setting"] == "defaults"]
        reached = f"{errors['defaults']:.2f} ± {stdev(own):.2f} | {errors[best]:.2f} | {best}"
        rows.append(f"| {name} | {of_set[0]['n']:,} | {reached} | {errors['defaults'] - errors[best]:+.2f} |")
    return [*rows, environment_line(found["environment"])]


def photo_rows() -> list[str]:
    found = read("photos.json")
    rows = [f"| `{command}` | {seconds:,.0f} s |" for command, seconds in found["seconds"].items()]
    total = sum(found["seconds"].values())
    return [*rows, f"| together | {total:,.0f} s |", environment_line(found["environment"])]


def test_defaults_never_diverge_and_come_near_the_best_of_the_grid():
    rows = [row for row in read("defaults.json")["rows"] if row["setting"] == "defaults"]
    assert len(rows) == 12
    assert all(row["error"] is not None for row in rows)
    for name in ("digits", "fashion", "crops", "imbalanced"):
        errors = mean_errors(name)
        assert errors["defaults"] <= min(errors.values()) + 2


def test_a_messy_folder_takes_less_than_ten_minutes():
    assert sum(read("photos.json")["seconds"].values()) < 600


def test_server_takes_a_quarter_of_the_time_of_another():
    assert min(read("serve.json")["processor_time_ratio"].values()) >= 4


def test_predict_is_as_fast_as_the_usual_way_and_takes_no_more_memory_for_more_files():
    found = read("predict.json")
    assert found["speed"]["ours_over_timm"]["quartile_1"] >= 1
    some, all_of_them = found["peak_bytes"].values()
    assert all_of_them < 1.1 * some


def test_server_takes_little_memory():
    assert max(row["resident_mib"] for row in read("serve.json")["servers"]["resnetlab"].values()) <= 100


def test_int8_of_a_good_net_passes_its_gate_and_takes_a_third_of_the_time():
    found = read("export.json")
    torch, *_, int8 = sorted(found["formats"], key=lambda check: (check["name"] == "int8", check["name"] != "torch"))
    assert (torch["name"], int8["name"]) == ("torch", "int8")
    assert torch["accuracy"] >= 0.92
    assert torch["accuracy"] - int8["accuracy"] <= 0.005
    assert 1 - int8["changed"] / int8["n"] >= 0.97
    assert max(turn["int8"] for turn in found["faster"].values()) >= 3


def coverage_table() -> str:
    found = read("coverage.json")
    names = ("student", "bootstrap", "share", "unseen", "bound", "grows")
    heads = ("errors", "n", "Student's", "BCa", "share", "unseen", "bound", "grows")
    lines = [heads, ("---",) * len(heads)]
    for row in found["rows"]:
        errors = "normal" if row["chance"] is None else f"{row['chance']:.0%} train".replace("%", " %")
        figures = ("–" if row[name] is None else f"{100 * row[name]:.0f}" for name in names)
        lines.append((errors, str(row["n"]), *figures))
    return "\n".join(f"| {' | '.join(line)} |".replace("| --- ", "|---").replace("|--- |", "|---|") for line in lines)


def test_coverage_of_intervals_is_drawn_from_its_record():
    found, text = read("coverage.json"), (ROOT / "docs" / "studies.md").read_text()
    assert coverage_table() in text
    assert f"Each row is {found['trials']:,} simulated studies" in text
    rows = {(row["chance"], row["n"]): row for row in found["rows"]}
    assert {n for _, n in rows} == {3, 5, 10, 20}
    # What the sentences below the table say.
    assert all(0.92 < row["student"] < 0.98 for (chance, _), row in rows.items() if chance is None)
    for told in (
        f"in {100 * rows[0.9, 3]['student']:.0f} % of the studies",
        f"with twenty seeds in {100 * rows[0.9, 20]['student']:.0f} %",
        f"in {100 * rows[0.9, 3]['unseen']:.0f} % of the studies of three seeds",
    ):
        assert told in " ".join(text.split())
    assert all(min(row["share"], row["bound"]) > 0.94 for (chance, _), row in rows.items() if chance is not None)
    assert max(row["grows"] for row in rows.values()) <= 0.05


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_row_of_a_run_is_drawn_from_its_record(path):
    record = read_record(RunRecord, path)
    assert run_row(record) in page()
    assert environment_line(record.environment) in page()


def test_there_are_runs():
    assert {path.stem for path in RUNS} == {"run-fashion-mnist", "run-cifar10-jpeg"}


BENCHMARKS = (
    loop_rows,
    compile_rows,
    checkpoint_rows,
    memory_rows,
    decode_rows,
    start_rows,
    feed_rows,
    probe_rows,
    startup_rows,
    study_rows,
    export_rows,
    predict_rows,
    serve_rows,
    defaults_rows,
    photo_rows,
)


@pytest.mark.parametrize("rows", BENCHMARKS)
def test_rows_of_a_benchmark_are_drawn_from_its_record(rows):
    for row in rows():
        assert row in page(), row
