"""docs/results.md and docs/faults.md say what the records beside them say; nothing in their tables is typed by hand."""

import json
from typing import Any

import pytest

from resnetlab.records import RunRecord, read_record
from tests.conftest import ROOT

RESULTS = ROOT / "docs" / "results"
RUNS = sorted(RESULTS.glob("run-*.json"))


def page(name: str = "results.md") -> str:
    return (ROOT / "docs" / name).read_text()


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


def loop_rows() -> list[str]:
    found = read("loop.json")
    rows = []
    for name, overhead in found["overhead"].items():
        low, middle, high = overhead["difference_ms_per_step"]
        rows.append(f"| the loop on {name}, above bare PyTorch | {middle:.3f} ms a step ({low:.3f} to {high:.3f}) |")
    for name, ratio in found["throughput"]["ratios"].items():
        low, middle, high = ratio
        rows.append(f"| cifar_resnet20, batch 128, over {name} | {middle:.2f}× ({low:.2f} to {high:.2f}) |")
    return rows


def decode_rows() -> list[str]:
    return [
        f"| {name} | {photo['speed_up']:.1f}× | {photo['mean_difference']:.2f} | {photo['largest_difference']:.0f} |"
        for name, photo in read("decode.json")["photos"].items()
    ]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_row_of_a_run_is_drawn_from_its_record(path):
    record = read_record(RunRecord, path)
    assert run_row(record) in page()
    assert environment_line(record.environment) in page()


def test_there_are_runs():
    assert {path.stem for path in RUNS} == {"run-fashion-mnist", "run-cifar10-jpeg"}


@pytest.mark.parametrize("rows", [loop_rows, decode_rows])
def test_rows_of_a_benchmark_are_drawn_from_its_record(rows):
    for row in rows():
        assert row in page(), row
