import re
from dataclasses import replace

import pytest

from resnetlab.core.errors import DataError
from resnetlab.records.gradients import GradientMoment
from resnetlab.report.run.figures import LOSS as LOSS_LINES
from resnetlab.report.run.figures import PALETTE, draw_curves, draw_moments, draw_run_figures, present
from resnetlab.report.run.page import heat_rows, png_side, render_run_page, shorten, shown_errors, write_run_report
from resnetlab.report.run.tables import (
    class_table,
    confused_pairs,
    duration,
    epoch_table,
    images_per_second,
    key_figures,
    moment_table,
    run_verdict,
)
from tests.made import HOSTILE, PNG, run, run_record
from tests.report.conftest import vectors_alone
from tests.report.test_study_page import Elements

COMMAND = "resnetlab train --out RUN"


def page_of(record, report, command: str = COMMAND) -> str:
    with vectors_alone():
        return render_run_page(record, report, command, draw_run_figures(record))


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(*run())


def test_page_runs_no_script_and_fetches_nothing_but_its_own_images(page):
    elements = Elements(page)
    assert elements.fetched == [f"data:image/png;base64,{PNG}"] * 2
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert "script" not in elements.tags
    assert not re.search(r"url\((?!#)|@import| on\w+=", page)


def test_page_fits_a_phone_the_dark_and_paper(page):
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    for rule in ("prefers-color-scheme: dark", "@media print", ".scroll { overflow-x: auto;", "max-width: 34rem"):
        assert rule in page
    # Every table may be wider than a phone, and scrolls in a box of its own.
    tables = len(re.findall("<table", page))
    assert tables == len(re.findall(r'<div class="scroll"[^>]*><table|<div class="scroll"[^>]*>\n<table', page)) == 4


def test_drawings_follow_the_page_into_the_dark(page):
    drawings = "".join(re.findall("<svg.*?</svg>", page, re.DOTALL))
    assert not [name for name, colour in PALETTE.items() if colour in drawings]
    assert "stroke: var(--accent)" in drawings
    style = page[page.index("<style>") : page.index("</style>")]
    for name, colour in PALETTE.items():
        assert f"--{name}: {colour}" in style, "the palette is the page's by light"
    assert set(re.findall(r"var\((--\w+)\)", page)) <= set(re.findall(r"(--\w+):", page))


def test_figures_and_images_have_words_for_those_who_do_not_see_them(page):
    words = re.findall(r'role="img" aria-label="([^"]+)"', page)
    assert len(words) == 3
    assert words[1] == (
        "Error in percent, by epoch: test from 25 in epoch 2 to 25 in epoch 2, between 25 and 25; "
        "validation from 45 in epoch 1 to 25 in epoch 2, between 25 and 45; "
        "training from 90 in epoch 1 to 50 in epoch 2, between 50 and 90."
    )
    assert 'alt="made/1.png: made 1, predicted as made 0 with 75.0%"' in page


def test_page_shows_result_tables_settings_data_environment_and_command(page):
    text = Elements(page).text
    record, report = run()
    for table in (confused_pairs(report), class_table(report), epoch_table(record.history)):
        assert all(cell in text for row in table.rows for cell in row)
    for value, words in key_figures(record, report):
        assert value in text
        assert words in text
    for part in (*run_verdict(record), "training.epochs", "lossless", "0" * 64, "processor", COMMAND):
        assert part in text


def test_hostile_names_add_no_element():
    harmless, hostile = page_of(*run()), page_of(*run(HOSTILE), command=HOSTILE)
    assert Elements(hostile).tags == Elements(harmless).tags
    assert HOSTILE not in hostile
    assert HOSTILE in Elements(hostile).text


def test_hostile_name_would_be_seen_where_it_is_not_escaped(monkeypatch):
    """The control of the test above."""
    from markupsafe import Markup

    monkeypatch.setattr("resnetlab.report.run.page.run_title", lambda _: Markup(HOSTILE))
    assert "script" in Elements(page_of(*run(HOSTILE))).tags


def test_image_that_is_none_is_refused():
    record, report = run()
    assert png_side(PNG) == 2
    for image in ("", "not base64!", "aGVsbG8=", '"><script>', PNG[4:]):
        wrong = replace(report, most_confident_errors=[replace(report.most_confident_errors[0], image=image)])
        with pytest.raises(DataError, match="no PNG"):
            page_of(record, wrong)


def test_thousand_classes_and_epochs_stay_small():
    record, report = run(classes=1000)
    epoch = replace(record.history[0], running_error=0.5, images_per_second=1000.0)
    long = replace(record, history=[replace(epoch, epoch=number) for number in range(1, 1001)])
    errors = [replace(report.most_confident_errors[0], image=PNG)] * 24
    page = page_of(long, replace(report, most_confident_errors=errors))
    assert len(page.encode()) < 1_000_000
    assert "Confusion matrix" not in page
    assert "All 1000 classes" in page
    assert len(epoch_table(long.history).rows) == 334
    assert epoch_table(long.history).rows[-1][0] == "1000"


def test_confusion_matrix_is_shown_up_to_twenty_classes():
    assert "Confusion matrix" in page_of(*run(classes=20))
    assert "Confusion matrix" not in page_of(*run(classes=21))
    rows = heat_rows(run()[1])
    assert [(name, n, [cell.count for cell in cells]) for name, n, cells in rows] == [
        ("made 0", 1, [1, 0, 0]),
        ("made 1", 1, [1, 0, 0]),
        ("made 2", 1, [0, 1, 0]),
    ]
    assert [(cell.share, cell.right) for cell in rows[1][2]] == [(1.0, False), (0.0, True), (0.0, False)]


def test_confused_pairs_come_by_their_number():
    _, report = run()
    many = replace(report, confusion=[(0, 0, 9), (0, 1, 1), (1, 0, 3), (2, 0, 3)])
    assert confused_pairs(many).rows == [
        ("made 1", "made 0", "3", "300.0%"),
        ("made 2", "made 0", "3", "300.0%"),
        ("made 0", "made 1", "1", "100.0%"),
    ]


def test_class_table_begins_with_the_least_recognised():
    assert class_table(run()[1]).rows == [
        ("made 1", "1", "0.0%", "0.0%"),
        ("made 2", "1", "0.0%", "–"),
        ("made 0", "1", "100.0%", "50.0%"),
    ]


def test_epochs_without_training_error_or_speed_are_drawn():
    record, report = run()
    bare = replace(record, history=[replace(epoch, train=None) for epoch in record.history])
    assert [line[0] for line in present(LOSS_LINES, bare.history)] == ["test", "validation", "training, running"]
    assert [drawing.name for drawing in draw_run_figures(bare)] == ["loss", "error", "learning-rate"]
    page_of(bare, report)
    one = replace(bare, history=[replace(bare.history[0], running_error=0.5), *record.history[1:]])
    axes = draw_curves(one, "Loss", LOSS_LINES).axes[0]
    drawn = {line.get_label(): list(line.get_xdata()) for line in axes.lines if line.get_label() != "best epoch"}
    assert drawn == {"test": [2], "validation": [1, 2], "training": [2], "training, running": [1, 2]}


def test_speed_is_the_median_of_what_is_known():
    record, _ = run()
    assert images_per_second(record) is None
    fast = replace(record, history=[replace(record.history[0], images_per_second=v) for v in (10.0, 1000.0, 1200.0)])
    assert images_per_second(fast) == 1000.0
    assert "speed" in [drawing.name for drawing in draw_run_figures(fast)]


def test_diverged_run_without_an_epoch_says_so():
    record = run_record(None)
    page = page_of(record, None)
    text = Elements(page).text
    assert "Diverged: the loss became nan made" in text
    assert "No epoch was completed" in text
    assert "svg" not in Elements(page).tags
    assert "test accuracy" not in text
    assert 'class="answer broken"' in page


def test_verdict_names_best_epoch_and_an_early_end():
    record, _ = run()
    assert run_verdict(record) == [
        "75.00% accuracy on 50 test images after 2 epochs (error 25.00%, loss 0.5000)",
        "The last epoch is also the best one on the validation images",
    ]
    worse = replace(record.history[1], epoch=3, validation=replace(record.history[1].validation, error=0.5))
    early = replace(
        record, history=[*record.history, worse], recipe={"training": {"epochs": 9}}, message="no better epoch in 1"
    )
    assert run_verdict(early)[1:] == [
        "Ended after 3 of 9 epochs: no better epoch in 1",
        "Best epoch: 2, chosen on the validation images, with 75.00% accuracy on 20 validation images and 75.00% "
        "accuracy on 50 test images",
    ]


def test_verdict_says_where_what_reports_also_chose_and_where_nothing_did():
    record, report = run()
    worse = replace(record.history[1], epoch=3, validation=replace(record.history[1].validation, error=0.5))
    alone = replace(record, history=[replace(e, test=None) for e in (*record.history, worse)])
    assert run_verdict(alone) == [
        "50.00% accuracy on 20 validation images after 3 epochs (error 50.00%, loss 1.0000)",
        "Best epoch: 2, chosen on the validation images, with 75.00% accuracy on 20 validation images; the same images "
        "chose it, so this figure is optimistic",
    ]
    figures = [("50.00%", "validation accuracy, n = 20"), ("1.0000", "validation loss, nats")]
    assert key_figures(alone, report)[:2] == figures
    older = replace(run_record(0.5), chosen_by="test")
    assert run_verdict(older)[1].startswith("The last epoch is also the best one on the test images; the same images")
    assert run_verdict(replace(older, chosen_by=None))[1].startswith("Nothing chose among the epochs")


def test_epoch_table_has_the_splits_that_were_evaluated():
    table = epoch_table(run()[0].history)
    assert table.heads[4:10:2] == ("training loss", "validation loss", "test loss")
    assert [row[8:10] for row in table.rows] == [("–", "–"), ("0.5000", "25.00")]
    assert "validation loss" not in epoch_table(run_record(0.5).history).heads


def test_nan_answers_and_a_faultless_run_are_said():
    record, report = run()
    assert "1 of 3 images gave a NaN" in page_of(record, replace(report, unanswered=1))
    faultless = replace(report, confusion=[(k, k, 1) for k in range(3)], most_confident_errors=[])
    assert "every test image was classified correctly" in page_of(record, faultless)


def test_small_images_are_enlarged_without_smoothing():
    (first, _) = shown_errors(run()[1])
    assert (first.small, first.probability) == (True, "75.0%")


def test_report_is_equal_when_drawn_again(tmp_path):
    for name in ("one", "two"):
        assert write_run_report(*run(), COMMAND, tmp_path / name) == tmp_path / name / "report.html"
    assert (tmp_path / "one" / "report.html").read_bytes() == (tmp_path / "two" / "report.html").read_bytes()


def test_long_lists_of_the_data_are_cut():
    assert shorten({"n": 3, "few": [1, 2], "many": list(range(13))}) == {
        "n": 3,
        "few": [1, 2],
        "many": [*range(12), "… (13 in all)"],
    }


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (245, "4 min 5 s"), (27060, "7 h 31 min")])
def test_duration_has_two_units(seconds, text):
    assert duration(seconds) == text


def moments(*growth: float | None) -> list[GradientMoment]:
    """After 0, 1, 2, 4 … steps."""
    steps = [0, *(2**power for power in range(len(growth) - 1))]
    return [GradientMoment(step=step, first=1.0, last=1.0, growth=g) for step, g in zip(steps, growth, strict=True)]


def test_growth_of_gradients_is_drawn_over_the_steps_and_said_in_words():
    record, report = run()
    traced = replace(record, gradient_trace=moments(3.5, 2.25, None, -0.5))
    axes = draw_moments([one for one in traced.gradient_trace if one.growth is not None], "growth", "Growth").axes[0]
    assert axes.lines[-1].get_xydata().tolist() == [[0, 3.5], [1, 2.25], [4, -0.5]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]
    page = page_of(traced, report)
    assert "by step: +3.50 at step 0, +2.25 at step 1, -0.50 at step 4." in page
    assert "after 0, 1, 2, 4, 8 … steps" in page
    assert not [name for name, colour in PALETTE.items() if colour in "".join(re.findall("<svg.*?</svg>", page, re.S))]


def test_run_without_a_trace_has_no_growth_and_one_without_an_epoch_may(page):
    assert "Growth of the relative gradient from" not in page
    diverged = run_record(None)
    assert [drawing.name for drawing in draw_run_figures(diverged)] == []
    assert [drawing.name for drawing in draw_run_figures(replace(diverged, gradient_trace=moments(9.0)))] == []
    traced = replace(diverged, gradient_trace=moments(9.0, 8.0))
    assert [drawing.name for drawing in draw_run_figures(traced)] == ["growth"]
    text = Elements(page_of(traced, None)).text
    assert "Growth of the relative gradient from" in text
    assert "The epochs as numbers" not in text


def test_what_else_was_measured_of_the_moments_is_drawn_and_tabled(page):
    record, report = run()
    assert "The moments as numbers" not in page
    plain = moments(3.5, 2.25, None)
    changes = (None, 0.5, 0.25)
    known = [replace(one, correlation=0.9, rank=7.0, change=change) for one, change in zip(plain, changes, strict=True)]
    traced = replace(record, gradient_trace=known)
    names = [drawing.name for drawing in draw_run_figures(traced)]
    assert names[-4:] == ["growth", "correlation", "change", "rank"]
    axes = draw_moments(known[1:], "change", "change", "log").axes[0]
    assert axes.get_yscale() == "log"
    assert axes.lines[-1].get_xydata().tolist() == [[1, 0.5], [2, 0.25]]
    assert moment_table(known).rows == [
        ("0", "0.9", "–", "–", "–", "7"),
        ("1", "0.9", "–", "0.5", "–", "7"),
        ("2", "0.9", "–", "0.25", "–", "7"),
    ]
    assert moment_table(plain).rows == []
    text = page_of(traced, report)
    assert "The moments as numbers" in text
    assert "‖ΔW‖/‖W‖ of the step, by step: 0.5 at step 1, 0.25 at step 2." in text
