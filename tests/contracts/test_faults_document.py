"""The table of what users hand in names tests that exist."""

import re

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "faults.md").read_text()
NAMED = re.findall(r"\| `([\w/.]+)::(\w+)` \|$", TEXT, flags=re.MULTILINE)


def test_the_table_names_a_test_in_every_row():
    rows = [line for line in TEXT.splitlines() if re.match(r"\| (?!input|-)", line)]
    assert len(NAMED) == len(rows) >= 40


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_each_test_that_is_named_exists(file, test):
    assert f"def {test}(" in (ROOT / "tests" / file).read_text()
