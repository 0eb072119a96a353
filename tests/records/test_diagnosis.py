import json
from dataclasses import replace

import pytest

from resnetlab.core.errors import DataError
from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.records.diagnosis import CamResult, LandscapeResult, NetResult
from tests.made import cam_result, landscape_result, net_result


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
    older = {name: value for name, value in plain.items() if name not in ("paths", "landscape", "cams")}
    assert from_plain(NetResult, older, "it") == replace(net_result(), paths=None, landscape=None, cams=[])
