import re
from base64 import b64encode
from dataclasses import replace
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from resnetlab.core.errors import DataError
from resnetlab.records.diagnosis import LARGEST_IMAGE
from resnetlab.report.diagnosis.cam import DETAIL, MOST_CAMS, STRENGTH, Cam, cam_of, draw, draw_cams, lay_over
from resnetlab.report.diagnosis.page import draw_diagnosis, render_diagnosis_page
from tests.made import HOSTILE, cam_result, diagnosis, net_result
from tests.report.test_contact_sheet import contains, pixels
from tests.report.test_study_page import Elements

RNG = np.random.default_rng(0)


def cam(side: int = 8, channels: int = 3, caption: str = "3, taken for 5", heat: float | None = None) -> Cam:
    return Cam(
        caption=caption,
        image=RNG.integers(0, 256, (side, side, channels), dtype=np.uint8),
        heat=RNG.random((side, side)) if heat is None else np.full((side, side), heat),
    )


def grown(image: np.ndarray, factor: int) -> np.ndarray:
    return image.repeat(factor, 0).repeat(factor, 1)


@pytest.mark.parametrize(("side", "factor"), [(8, 12), (28, 3), (32, 3), (96, 1), (128, 1)])
def test_image_and_its_overlay_stand_on_the_sheet(side, factor):
    cams = [cam(side) for _ in range(5)]
    sheet = pixels(draw_cams("t", "d", cams))
    for one in cams:
        assert contains(sheet, grown(one.image, factor))
        assert contains(sheet, lay_over(grown(one.image, factor), one.heat))
    assert not contains(sheet, grown(cam(side).image, factor))


@pytest.mark.parametrize("heat", [0.0, float("nan")])
def test_no_heat_leaves_the_grey_image(heat):
    one = cam(channels=1, heat=heat)
    colours = one.image.repeat(3, 2)
    assert np.array_equal(lay_over(colours, one.heat), colours)


def test_full_heat_covers_by_its_strength():
    found = lay_over(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4)))
    expected = 255 * STRENGTH * np.array(mpl.colormaps["inferno"](1.0)[:3])
    assert np.abs(found - expected).max() <= 0.5


def test_heat_lies_where_it_is():
    heat = np.zeros((8, 8))
    heat[:, :2] = 1
    found = lay_over(np.full((8, 8, 3), 90, np.uint8), heat)
    assert (found[:, 6:] == 90).all()
    assert (found[:, 0] != 90).any(axis=-1).all()


@pytest.mark.parametrize("count", [0, 1, 3, 13, MOST_CAMS + 5])
def test_any_number_of_images_fits(count):
    sheet = pixels(draw_cams("t", "d", [cam() for _ in range(count)]))
    assert max(sheet.shape) < 4000


def test_large_images_and_captions_of_any_letters_are_drawn_the_same_each_time():
    for caption in (HOSTILE, "$\\frac{$", "", "日本語", "x" * 500):
        one = cam(side=224, caption=caption)
        first = draw_cams(caption, caption, [one])
        assert first == draw_cams(caption, caption, [one])
        assert Image.open(BytesIO(first)).format == "PNG"


def test_sheet_shows_the_images_and_maps_of_the_record():
    net, plain = draw(diagnosis())
    assert net.description.startswith("This net")
    assert plain.description.startswith("Plain")
    result = net_result().cams[0]
    cam = cam_of(result)
    assert cam.image.shape == (2, 2, 3)
    assert (cam.caption, cam.detail) == ("made 75.0%", "image 0, right")
    assert cam_of(net_result().cams[1]).detail == "image 7, true: b"
    grown = cam.image.repeat(48, 0).repeat(48, 1)
    sheet = pixels(net.png)
    assert contains(sheet, grown)
    assert contains(sheet, lay_over(grown, np.array(result.heat)))
    assert not contains(sheet, lay_over(grown, 1 - np.array(result.heat)))
    assert net.png == draw_cams("This net", DETAIL, [cam_of(one) for one in net_result().cams])


def test_no_answer_is_drawn_without_heat_and_said():
    found = diagnosis()
    lost = replace(found, net=replace(found.net, cams=[cam_result(predicted=None)]), plain=None)
    (sheet,) = draw(lost)
    assert sheet.description == "This net: image 3, zero, predicted as nothing (–), no heat"
    assert np.isnan(cam_of(lost.net.cams[0]).heat).all()


@pytest.mark.parametrize("image", ["", "not base64!", "aGVsbG8=", cam_result().image[:60]])
def test_image_that_is_none_is_refused(image):
    with pytest.raises(DataError, match="image 3 of the diagnosis is no whole PNG"):
        cam_of(replace(cam_result(), image=image))


def test_image_that_is_larger_than_those_kept_is_refused():
    for side in (LARGEST_IMAGE, LARGEST_IMAGE + 1):
        stream = BytesIO()
        Image.new("L", (side, 1)).save(stream, format="PNG")
        image = b64encode(stream.getvalue()).decode()
        if side == LARGEST_IMAGE:
            assert cam_of(replace(cam_result(), image=image)).image.shape == (1, side, 3)
        else:
            with pytest.raises(DataError, match="more than 128 pixels"):
                cam_of(replace(cam_result(), image=image))


def test_class_named_by_others_stays_text():
    found = diagnosis()
    hostile = replace(found, net=replace(found.net, cams=[cam_result(true=HOSTILE, predicted=HOSTILE)]))
    page = render_diagnosis_page(hostile, draw_diagnosis(hostile))
    assert HOSTILE not in page
    assert "script" not in Elements(page).tags
    assert re.search(r'alt="This net: image 3, &lt;script&gt;', page)


def test_page_of_many_large_images_of_noise_stays_small():
    """The most that can be asked for, of the plain net as well, in images that no PNG makes smaller."""
    import torch

    from resnetlab.diagnostics.config import MOST_NAMED
    from resnetlab.train.evaluate import SIDE, encode_png
    from tests.made import landscape_result

    cams = [
        replace(cam_result(n), image=encode_png(torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)))
        for n in range(MOST_NAMED)
    ]
    found = diagnosis()
    large = [replace(net, cams=cams, landscape=landscape_result(21)) for net in (found.net, found.plain)]
    found = replace(found, net=large[0], plain=large[1])
    assert len(render_diagnosis_page(found, draw_diagnosis(found)).encode()) < 3_000_000


def test_diagnosis_of_an_older_version_has_its_page():
    found = diagnosis()
    later = ("shattering", "rank", "agreement", "step", "paths", "landscape")
    bare = [replace(net, **dict.fromkeys(later), cams=[]) for net in (found.net, found.plain)]
    kept = [finding for finding in found.findings if finding.analysis not in (*later, "cam")]
    older = replace(found, net=bare[0], plain=bare[1], findings=kept)
    assert draw(older) == []
    page = render_diagnosis_page(older, draw_diagnosis(older))
    assert Elements(page).fetched == []
    assert len(re.findall('role="img"', page)) == 5
