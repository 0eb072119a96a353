"""The table of breaks fits the code: what each one replaces stands there once. ``make test-breaks`` runs them."""

import pytest

from tests.breaks import BREAKS, PACKAGE
from tests.conftest import ROOT


@pytest.mark.parametrize("name", BREAKS)
def test_break_has_its_place(name):
    one = BREAKS[name]
    assert (ROOT / PACKAGE / one.file).read_text().count(one.old) == 1
    assert one.new != one.old
    assert all((ROOT / test.partition("::")[0]).exists() for test in one.tests.split())
