import json
from dataclasses import replace

import pytest

from resnetlab.core.errors import DataError
from resnetlab.core.files import write_json
from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.records.diagnosis import CamResult, LandscapeResult, NetResult, read_diagnosis
from resnetlab.records.study_diagnosis import read_study_diagnosis
from tests.made import cam_result, diagnosis, landscape_result, net_result, study_diagnosis


def test_warm_is_what_has_half_of_the_largest_heat():
    assert cam_result(warm=3).warm == 3 / 16
    assert cam_result(warm=16).warm == 1
    assert replace(cam_result(), heat=[[0.49, 0.5, 1.0]]).warm == 2 / 3
    assert cam_result(warm=0).warm is None
    assert cam_result(predicted=None).warm is None


@pytest.mark.parametrize("rows", [[], [[]], [[1.0], [1.0, 2.0]], [[1.0, 1.0]] * 3])
def test_rows_that_make_no_square_are_refused(rows):
    whole = as_plain(landscape_result(3))
    assert from_plain(LandscapeResult, whole, "it") == landscape_result(3)
    with pytest.raises(DataError, match="it is not a valid"):
        from_plain(LandscapeResult, whole | {"losses": rows}, "it")
    if rows != [[1.0, 1.0]] * 3:
        with pytest.raises(DataError, match="it is not a valid"):
            from_plain(CamResult, as_plain(cam_result()) | {"heat": rows}, "it")


def test_record_of_an_older_version_has_no_paths_landscape_and_cams():
    plain = json.loads(json.dumps(as_plain(net_result())))
    newer = {"paths": None, "landscape": None, "shattering": None, "rank": None, "agreement": None, "step": None}
    newer |= {"cams": []}
    older = {name: value for name, value in plain.items() if name not in newer}
    assert from_plain(NetResult, older, "it") == replace(net_result(), **newer)


def test_record_of_format_1_is_read_with_its_words_of_today(tmp_path):
    """It called an image a picture and an analysis a part, and had signal and identity beside the networks."""
    found = diagnosis()
    found = replace(found, net=replace(found.net, signal=replace(found.net.signal, own={})))
    old = as_plain(replace(found, command="resnetlab diagnose a --pictures 9 --cam-pictures 3"))
    for net in (old["net"], old["initial"], old["plain"]):
        del net["signal"], net["identity"]
        net["cams"] = [{**cam, "picture": cam["image"]} for cam in net["cams"]]
        for cam in net["cams"]:
            del cam["image"], cam["name"]
    old["findings"] = [{"part": finding.pop("analysis"), **finding} for finding in old["findings"]]
    whole = as_plain(found)["net"]
    old |= {"format": 1, "control": old.pop("plain"), "identity": whole["identity"]}
    old |= {"signal": whole["signal"]["settings"]}
    del old["split"]
    write_json(tmp_path / "old.json", old)
    assert read_diagnosis(tmp_path / "old.json") == replace(
        found, command="resnetlab diagnose a --images 9 --cam-images 3"
    )
    write_json(tmp_path / "old.json", {"source": "a"})
    with pytest.raises(DataError, match="is damaged or is not ours"):
        read_diagnosis(tmp_path / "old.json")


def test_study_diagnosis_of_format_1_is_read(tmp_path):
    found = study_diagnosis()
    old = as_plain(found)
    for run in old["runs"]:
        del run["net"]["signal"], run["net"]["identity"]
        run["net"]["cams"] = [
            {("picture" if name == "image" else name): value for name, value in cam.items()}
            for cam in run["net"]["cams"]
        ]
    old["measures"] = [{"part": measure.pop("analysis"), **measure} for measure in old["measures"]]
    old |= {"format": 1, "pictures": old.pop("images"), "combinations": old.pop("conditions")}
    write_json(tmp_path / "old.json", old)
    assert read_study_diagnosis(tmp_path / "old.json") == found
