from dataclasses import replace

import pytest

from resnetlab.diagnostics.explain_surveys import explain_cam, explain_landscape, explain_paths
from tests.made import cam_reading, landscape_reading, net_reading, path_reading


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0, 2, "short"), (0, 3, "between"), (3, 6, "between"), (4, 6, "long"), (None, None, "broken")],
)
def test_paths_are_short_or_long_beside_half_of_the_blocks(low, high, verdict):
    known = low is not None
    net = replace(net_reading(), paths=replace(path_reading(known=known), low=low, high=high))
    found = explain_paths(net, None)
    assert found.verdict == verdict
    assert bool(found.advice) is (verdict != "between")
    assert ("through 2.0 of 6 branches in the mean; 95% of it" in found.sentences[0]) is known
    assert "n = 32 images" in found.sentences[0]


def test_paths_before_training_stand_beside_those_after():
    found = explain_paths(net_reading(), net_reading(state="at initialisation"))
    assert [line.partition(":")[0] for line in found.sentences] == [
        "resnet made, after 2 epochs", "resnet made, at initialisation"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"convex": 0.9}, "smooth"), ({"convex": 0.89}, "between"), ({"convex": 0.5}, "rugged"),
        ({"flat": None}, "untrained"), ({"centre": None, "flat": None}, "broken"), ({"convex": None}, "broken"),
    ],
)  # fmt: skip
def test_surface_is_judged_by_where_it_is_convex(changes, verdict):
    net = replace(net_reading(), landscape=replace(landscape_reading(), **changes))
    found = explain_landscape(net, None)
    assert found.verdict == verdict
    assert bool(found.advice) is (verdict not in ("smooth", "between"))
    assert "n = 1,000 training images" in found.sentences[0]


def test_surface_of_the_twin_is_told_and_a_rugged_plain_net_is_sent_to_its_residual_twin():
    plain = replace(net_reading(plain=True), landscape=replace(landscape_reading(), convex=0.2))
    assert "plain made" in explain_landscape(net_reading(), plain).sentences[1]
    (advice,) = explain_landscape(plain, None).advice
    assert "no shortcuts" in advice
    assert "no shortcuts" not in explain_landscape(replace(plain, plain=False), None).advice[0]


@pytest.mark.parametrize(
    ("warm", "verdict"), [((4, 4), "focused"), ((5, 5), "between"), ((8, 9), "spread"), ((0, 4), "blank")]
)
def test_answers_are_judged_by_how_much_of_the_map_is_warm(warm, verdict):
    net = replace(net_reading(), cams=[cam_reading(n, warm=cells) for n, cells in enumerate(warm)])
    found = explain_cam(net, None)
    assert found.verdict == verdict
    assert "2 of 2 test images are recognised (images 0, 1); the maps have 4 × 4 cells" in found.sentences[0]
    assert any("nothing speaks for the answer in image 0" in line for line in found.sentences) is (verdict == "blank")


def test_few_cells_are_coarse_and_no_number_is_broken():
    coarse = replace(cam_reading(), heat=[[1.0, 0.0]] * 2)
    assert explain_cam(replace(net_reading(), cams=[coarse]), None).verdict == "coarse"
    found = explain_cam(replace(net_reading(), cams=[cam_reading(), cam_reading(predicted=None)]), None)
    assert found.verdict == "broken"
    assert "1 of 2 test images are recognised" in found.sentences[0]


def test_wrong_answers_are_named_to_be_looked_at():
    right, wrong = cam_reading(4), cam_reading(9, predicted="b")
    assert explain_cam(replace(net_reading(), cams=[right]), None).advice == []
    (advice,) = explain_cam(replace(net_reading(), cams=[right, wrong]), None).advice
    assert advice.startswith("Not recognised: image 9.")
