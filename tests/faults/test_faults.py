"""Every fault with a small count; ``make test-faults`` injects them in full."""

import pytest

from tests.conftest import ROOT
from tests.faults import processes, signals
from tests.faults.__main__ import FAULTS
from tests.faults.processes import Pool
from tests.faults.table import read_results, table

SMALL = {"kill": 6, "operations": 20, "resume": 8, "worse": 5, "damage": 100, "signals": 3}
SMALL |= {"storage": 7, "numbers": 10, "worker": 3, "inputs": 120}
SMALL |= {"power": 100, "memory": 4, "edited": 4, "failed": 4}
LONG = {"memory"}
"""Faults whose few cases take half a minute: `make test-slow` injects them."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in SMALL])
def test_fault_is_survived_and_without_protection_it_is_not(name, monkeypatch):
    # How soon a process ends is counted in full, on a machine that does nothing else.
    monkeypatch.setattr(signals, "LIMIT", processes.PATIENCE)
    counts = FAULTS[name].function(SMALL[name], 1, Pool())
    assert counts["n"] == SMALL[name]
    assert counts["held"] == counts["n"], counts
    # A small sample may by chance lose less than its share; the full one must not.
    assert counts["control_n"] >= counts["control_lost"] > 0, counts
    if name == "damage":
        # Read without sums it passes about half of the time.
        assert 0.25 < counts["control_lost"] / counts["control_n"] < 0.75, counts


@pytest.mark.slow
def test_lost_rank_is_started_again():
    counts = FAULTS["rank"].function(1, 1, Pool())
    assert (counts["held"], counts["control_lost"]) == (1, 1), counts


def test_table_shows_each_count():
    counts = {"n": 7, "held": 6, "control_n": 5, "control_lost": 4}
    (row,) = table({"faults": {"kill": counts}}).splitlines()[2:]
    assert "| 6 of 7 | torch.save in place: 4 of 5, at least 5% must be |" in row


def test_document_shows_the_table_of_the_record():
    results = read_results()
    assert table(results) in (ROOT / "README.md").read_text()
    assert all(counts["held"] == counts["n"] for counts in results["faults"].values())
    assert all(FAULTS[name].control_holds(counts) for name, counts in results["faults"].items())


@pytest.mark.parametrize(("lost", "holds"), [(0, False), (9, False), (10, True)])
def test_control_that_loses_less_than_its_share_is_a_fault(lost, holds):
    assert FAULTS["operations"].share == 0.1
    assert FAULTS["operations"].control_holds({"control_lost": lost, "control_n": 100}) == holds
