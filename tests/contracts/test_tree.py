"""The tree of names: few at the top, no long file, and no subject in two files that a prefix tells apart."""

from itertools import combinations

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "src" / "resnetlab"
ROOMS = sorted({path.parent for path in PACKAGE.rglob("*.py")})

TWO_SUBJECTS = {
    ("checkpoint", "checkpoint_manager"): "what a checkpoint is; when one is kept, and which",
    ("diagnosis", "diagnosis_statistics"): "every run of a study diagnosed; what that says over the seeds",
    ("study", "study_diagnosis"): "the record of a study; that of its diagnosis",
    ("weight_files", "weights"): "reading files of weights; loading them into a network",
}
"""Files of one room whose names begin alike, and why they are two subjects."""


def test_few_names_at_the_top():
    names = {path.stem for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "py.typed")}
    assert len(names) <= 12, sorted(names)


def test_no_file_is_long():
    assert {path.name: n for path in PACKAGE.rglob("*.py") if (n := len(path.read_text().splitlines())) > 400} == {}


def word(stem: str) -> str:
    """The first word, in the singular."""
    return stem.split("_")[0].removesuffix("s")


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_no_subject_stands_in_two_files(room):
    stems = sorted({path.stem for path in room.iterdir() if path.suffix == ".py"} - {"__init__", "__main__"})
    alike = [pair for pair in combinations(stems, 2) if word(pair[0]) == word(pair[1])]
    assert [pair for pair in alike if pair not in TWO_SUBJECTS] == []
