import json

import pytest

from resnetlab.cli import main
from resnetlab.core.serialize import write_record
from tests.study.test_prediction import study


def test_studies_are_asked_together(tmp_path, capsys):
    for name in ("a", "b"):
        write_record(tmp_path / f"{name}.json", study())
    words = ["failures", str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "What foretells failure: 8 of 16 runs of 4 conditions did not train" in printed
    assert "growth of gradients at the start" in printed
    assert "above 2.25" in printed
    assert "The AUC is the share of pairs" in printed
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictors"][0]["auc"] == 1.0


@pytest.mark.parametrize(("words", "code"), [((), 2), (("nowhere",), 3)])
def test_what_is_no_study_is_refused(tmp_path, words, code):
    try:
        found = main(["failures", *(str(tmp_path / word) for word in words)])
    except SystemExit as exit_:  # tyro leaves by itself
        found = exit_.code
    assert found == code
