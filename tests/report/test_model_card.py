import re
from dataclasses import replace

import pytest
import yaml

from resnetlab.report.model_card import escape, fenced, front_matter, loading_code, run_card
from tests.made import HOSTILE, run, run_record

COMMAND = "resnetlab train --out RUN"
NASTY = f"{HOSTILE}\n---\n# é😀\x85\u2028 not a heading | [link](http://x) `code` ![image](y)"


def metadata(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def test_metadata_has_the_measured_accuracy_and_the_data_set():
    found = metadata(run_card(*run(), COMMAND))
    assert (found["library_name"], found["pipeline_tag"], found["tags"]) == (
        "resnetlab",
        "image-classification",
        ["resnet"],
    )
    (model,) = found["model-index"]
    (result,) = model["results"]
    assert model["name"] == "cifar_resnet8"
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"] == {"type": "made", "name": "made", "split": "test"}
    assert result["metrics"] == [{"type": "accuracy", "name": "Test accuracy", "value": 0.75}]


def test_metadata_is_what_the_hub_reads():
    hub = pytest.importorskip("huggingface_hub")
    (result,) = hub.ModelCard(run_card(*run(), COMMAND)).data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("made", "accuracy", 0.75)
    (result,) = hub.ModelCard(run_card(*run(NASTY), COMMAND)).data.eval_results
    assert result.dataset_name == NASTY


def test_card_says_result_data_training_and_limits():
    record, report = run()
    record = replace(record, recipe=record.recipe | {"seed": 7})
    card = run_card(record, report, COMMAND)
    for part in (
        "75.00% accuracy on 50 test images after 2 epochs",
        "seed 7",
        "encoding: lossless",
        "3 classes: made 0, made 1, made 2",
        "0" * 64,
        f"```sh\n{COMMAND}\n```",
        "| made 1 | made 0 | 1 | 100.0% |",
        "- torch: 1",
        "One run with one seed",
    ):
        assert part in card
    assert "JPEG" not in card
    jpeg = replace(record, data=record.data | {"encoding": "jpeg"})
    assert "encoding: JPEG, lossy" in run_card(jpeg, None, COMMAND)
    assert "another decoder" in run_card(jpeg, None, COMMAND)


def test_card_of_a_set_without_test_says_validation_and_that_it_chose():
    record, report = run()
    worse = replace(record.history[1], epoch=3, validation=replace(record.history[1].validation, error=0.5))
    alone = replace(record, history=[replace(e, test=None) for e in (*record.history, worse)])
    card = run_card(alone, replace(report, split="validation"), COMMAND)
    (result,) = metadata(card)["model-index"][0]["results"]
    assert (result["dataset"]["split"], result["metrics"][0]["name"]) == ("validation", "Validation accuracy")
    assert "were chosen on the validation images, so their figure is optimistic" in card
    assert not re.search(r"\btest\b", card)
    assert "optimistic" not in run_card(record, report, COMMAND)


def test_run_that_diverged_claims_no_result():
    card = run_card(run_record(None), None, COMMAND)
    assert "model-index" not in metadata(card)
    assert "do not use its weights" in card


def test_hostile_names_make_no_metadata_heading_link_or_html():
    harmless, hostile = run_card(*run(), COMMAND), run_card(*run(NASTY), COMMAND)
    assert metadata(hostile)["model-index"][0]["results"][0]["dataset"]["name"] == NASTY
    assert metadata(hostile).keys() == metadata(harmless).keys()
    body = hostile.split("\n---\n", 1)[1]
    code = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    text = code.sub("", body)
    assert not re.search(r"(?<!\\)[<\[]|^---$", text.replace("mean [", "").replace("std [", ""), re.MULTILINE)
    shape = [line.split(" ")[0] for line in code.sub("", harmless.split("\n---\n", 1)[1]).splitlines()]
    assert [line.split(" ")[0] for line in text.splitlines()] == shape


def test_escaped_text_is_shown_as_it_is():
    assert escape("a *b*\n# <c>") == r"a \*b\* \# \<c\>"
    assert escape("see: http://www.x") == r"see: http\://www\.x"
    assert escape(r"\|") == r"\\\|"


def test_fence_is_longer_than_what_it_holds():
    assert fenced("a ``` b") == "````sh\na ``` b\n````\n"


def test_loading_code_is_python_whatever_the_options_are_named():
    import ast

    record, _ = run(NASTY)
    code = loading_code(replace(record, recipe={"options": {NASTY: "1"}, "shortcut": "none"}))
    settings = next(node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Dict))
    assert ast.literal_eval(settings) == {
        "num_classes": 3,
        "in_chans": 1,
        "image_size": 2,
        NASTY: 1,
        "shortcut": None,
    }


def test_front_matter_ends_where_it_should():
    lines = front_matter(run(NASTY)[0]).splitlines()
    assert [number for number, line in enumerate(lines) if line == "---"] == [0, len(lines) - 1]
