import re
from base64 import b64decode, b64encode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from resnetlab.core.errors import DataError
from resnetlab.records.diagnosis import LARGEST_IMAGE
from resnetlab.report.diagnosis.cam import draw_cams, lay_over
from resnetlab.report.diagnosis.figures import draw_diagnosis_figures
from resnetlab.report.diagnosis.page import render_diagnosis_page
from resnetlab.report.diagnosis.survey_figures import DETAIL, cam_of, draw_cam_sheets, draw_survey_figures
from tests.made import HOSTILE, cam_reading, diagnosis, net_reading
from tests.report.test_sheet import contains, pixels
from tests.report.test_study_page import Elements


def test_sheet_shows_the_images_and_maps_of_the_record():
    net, twin = draw_cam_sheets(diagnosis())
    assert net.png != twin.png or net.description != twin.description
    reading = net_reading().cams[0]
    cam = cam_of(reading)
    assert cam.image.shape == (2, 2, 3)
    assert (cam.caption, cam.detail) == ("made 75.0%", "image 0, right")
    assert cam_of(net_reading().cams[1]).detail == "image 7, true: b"
    grown = cam.image.repeat(48, 0).repeat(48, 1)
    sheet = pixels(b64decode(net.png))
    assert contains(sheet, grown)
    assert contains(sheet, lay_over(grown, np.array(reading.heat)))
    assert not contains(sheet, lay_over(grown, 1 - np.array(reading.heat)))
    assert b64decode(net.png) == draw_cams("This net", DETAIL, [cam_of(one) for one in net_reading().cams])


def test_figures_stand_beside_what_they_are_compared_with():
    paths, surface = draw_survey_figures(diagnosis())
    assert (paths.name, surface.name) == ("paths", "landscape")
    assert "before training" in paths.svg.decode()
    assert all(name in surface.svg.decode() for name in ("this net", "plain twin", "centre 0.1,", "centre 5,"))
    alone = draw_survey_figures(replace(diagnosis(), initial=None, control=None))
    assert not any(name in one.svg.decode() for one in alone for name in ("before training", "plain twin"))


def test_no_answer_is_drawn_without_heat_and_said():
    found = diagnosis()
    lost = replace(found, net=replace(found.net, cams=[cam_reading(predicted=None)]), control=None)
    (sheet,) = draw_cam_sheets(lost)
    assert sheet.description == "This net: image 3, zero, taken for nothing (–), no heat"
    assert np.isnan(cam_of(lost.net.cams[0]).heat).all()


@pytest.mark.parametrize("image", ["", "not base64!", "aGVsbG8=", cam_reading().image[:60]])
def test_image_that_is_none_is_refused(image):
    with pytest.raises(DataError, match="image 3 of the diagnosis is no whole PNG"):
        cam_of(replace(cam_reading(), image=image))


def test_image_that_is_larger_than_those_kept_is_refused():
    for side in (LARGEST_IMAGE, LARGEST_IMAGE + 1):
        stream = BytesIO()
        Image.new("L", (side, 1)).save(stream, format="PNG")
        image = b64encode(stream.getvalue()).decode()
        if side == LARGEST_IMAGE:
            assert cam_of(replace(cam_reading(), image=image)).image.shape == (1, side, 3)
        else:
            with pytest.raises(DataError, match="more than 128 pixels"):
                cam_of(replace(cam_reading(), image=image))


def test_class_named_by_others_stays_text():
    found = diagnosis()
    hostile = replace(found, net=replace(found.net, cams=[cam_reading(true=HOSTILE, predicted=HOSTILE)]))
    page = render_diagnosis_page(hostile, [])
    assert HOSTILE not in page
    assert "script" not in Elements(page).tags
    assert re.search(r'alt="This net: image 3, &lt;script&gt;', page)


def test_page_of_many_large_images_of_noise_stays_small():
    """The most that can be asked for, of the twin as well, in images that no PNG makes smaller."""
    import torch

    from resnetlab.diagnostics.config import MOST_NAMED
    from resnetlab.train.evaluate import SIDE, encode_png
    from tests.made import landscape_reading

    cams = [
        replace(cam_reading(n), image=encode_png(torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)))
        for n in range(MOST_NAMED)
    ]
    found = diagnosis()
    large = [replace(net, cams=cams, landscape=landscape_reading(21)) for net in (found.net, found.control)]
    found = replace(found, net=large[0], control=large[1])
    assert len(render_diagnosis_page(found, draw_diagnosis_figures(found)).encode()) < 3_000_000


def test_diagnosis_of_an_older_version_has_its_page():
    found = diagnosis()
    bare = [replace(net, paths=None, landscape=None, cams=[]) for net in (found.net, found.control)]
    kept = [finding for finding in found.findings if finding.part not in ("paths", "landscape", "cam")]
    older = replace(found, net=bare[0], control=bare[1], findings=kept)
    assert draw_cam_sheets(older) == []
    page = render_diagnosis_page(older, draw_diagnosis_figures(older))
    assert Elements(page).fetched == []
    assert len(re.findall('role="img"', page)) == 5
