from dataclasses import replace

from resnetlab.diagnostics.residuals import DEAD, IDLE, REFINING, RULE, explain, shortcut_share, summarise
from tests.made import block_statistics, diagnosis


def test_medians_means_and_shares_of_made_blocks():
    found = summarise([block_statistics(n, ratio=ratio) for n, ratio in enumerate((0.01, 0.2, 0.3))])
    assert (found.verdict, found.ratio, found.idle) == ("refining", 0.2, ["stages.0.0"])
    assert (found.cosine, found.dead, found.response, found.share) == (0.9, 0.0, 1.5, 0.75)


def test_verdict_changes_at_the_printed_threshold():
    assert summarise([block_statistics(0, ratio=REFINING)]).verdict == "rewriting"
    assert summarise([block_statistics(0, ratio=REFINING - 1e-9)]).verdict == "refining"
    assert summarise([block_statistics(0, ratio=0.0)]).verdict == "silent"
    assert summarise([block_statistics(0, ratio=None), block_statistics(1)]).verdict == "broken"
    assert summarise([block_statistics(0, plain=True)]).verdict == "plain"
    for number in (f"{REFINING:g}", f"{IDLE:g}", f"{DEAD:.0%}"):
        assert number in RULE


def test_share_needs_a_shortcut_and_a_gradient():
    assert shortcut_share(block_statistics(0)) == 0.75
    assert shortcut_share(block_statistics(0, plain=True)) is None
    assert shortcut_share(block_statistics(0, gradient_shortcut=0.0, gradient_branch=0.0)) is None


def test_responses_of_a_pair_are_compared_as_in_figure_seven():
    assert "1.500 in resnet made, smaller than the 2.000 in plain made" in explain(diagnosis()).sentences[-1]


def test_dead_channels_and_idle_blocks_are_worth_advice():
    found = diagnosis()
    assert explain(found).advice == []
    blocks = [block_statistics(0, dead=0.2), block_statistics(1, ratio=0.001, dead=0.2)]
    advice = explain(replace(found, net=replace(found.net, blocks=blocks))).advice
    assert "stages.0.1 change next to nothing" in advice[0]
    assert "20% of the channels are dead" in advice[1]
