"""Load a trained network: it answers as the run did, from its folder alone, and says what a run lacks."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import resnetlab
from resnetlab.core.errors import CheckpointError, ConfigError, DataError
from resnetlab.data.sources import load_data
from resnetlab.train.folder import DATA, RECIPE
from resnetlab.train.run import restored_network


def reference_logits(run, which, numbers):
    """Logits as the training loop computes them: the stored images, standardised by their own statistics."""
    net, data, _ = restored_network(run, which)
    images = next(data.reported.batches([numbers]))
    with torch.inference_mode():
        return net.eval()(data.normalisation.on(torch.device("cpu"))(images)), data


@pytest.mark.parametrize("which", ["best", "last"])
def test_files_have_the_logits_of_the_run_to_the_bit(colour_run, which):
    numbers = torch.arange(8)
    expected, data = reference_logits(colour_run, which, numbers)
    net = resnetlab.load(colour_run, checkpoint=which)
    paths = [colour_run.parent / "set" / data.reported.names[n] for n in numbers]
    batch = torch.stack([net.preprocess(path) for path in paths])
    assert torch.equal(net.logits(batch), expected)
    pixels = np.stack([net.preprocessing.pixels(path) for path in paths])
    # Pixels lie in memory as in a file, so that sums are made in another order.
    assert np.allclose(net.logits_of_pixels(pixels), expected.numpy(), atol=1e-5)
    assert [one.answer for one in net.predict(paths)] == [net.classes[k] for k in expected.argmax(1)]


def test_best_and_last_are_two_networks(colour_run):
    best, last = (resnetlab.load(colour_run, checkpoint=which) for which in ("best", "last"))
    state = restored_network(colour_run, "best")[0].state_dict()
    assert all(torch.equal(value, state[name]) for name, value in best.net.state_dict().items())
    assert (best.classes, best.preprocessing) == (last.classes, last.preprocessing)


def test_the_digits_have_the_logits_of_the_run(digits_run, digits):
    """Their 17 grey levels are rounded to whole pixels, half a level of 255 at most; beyond that nothing differs."""
    expected, data = reference_logits(digits_run, "last", torch.arange(len(digits.test)))
    net = resnetlab.load(digits_run, checkpoint="last")
    levels = data.test.images
    predicted = net.predict(levels, white=16)
    rounded = torch.round(levels * (255 / 16)) * 16 / 255
    with torch.inference_mode():
        near = net.net(data.normalisation.on(torch.device("cpu"))(rounded))
    pixels = np.stack([net.preprocessing.pixels(image[0].numpy(), white=16) for image in levels])
    assert np.allclose(net.logits_of_pixels(pixels), near.numpy(), atol=1e-4)
    sure = expected.softmax(1).max(1).values > 0.6
    answers = [net.classes.index(one.answer) for one in predicted]
    assert sure.sum() > 300
    assert torch.equal(torch.tensor(answers)[sure], expected.argmax(1)[sure])


def test_every_kind_of_image_has_the_same_answer(digits_run, digits, tmp_path):
    net = resnetlab.load(str(digits_run))
    levels = digits.test.images[0, 0]
    pixels = np.rint(levels.numpy() * (255 / 16)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    expected = net.predict(tmp_path / "digit.png")
    assert len(expected.classes) == 5
    kinds = [
        str(tmp_path / "digit.png"),
        (tmp_path / "digit.png").read_bytes(),
        Image.fromarray(pixels),
        Image.fromarray(pixels).convert("RGB"),
    ]
    first = net.predict(kinds)
    assert first == [first[0]] * 4
    assert first[0].probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    assert net.predict(pixels, white=255) == expected
    assert net.predict(levels, white=16) == net.predict(levels[None].float() / 16, white=1) == expected
    several = net.predict(digits.test.images[:70], top=2, white=16)
    assert len(several) == 70
    assert several[0].classes == expected.classes[:2]
    assert net.predict(digits.test.images[:70].permute(0, 2, 3, 1).numpy(), top=2, white=16) == several
    assert net.predict(list(digits.test.images[:70, 0]), top=2, white=16) == several


def test_what_does_not_say_its_white_is_refused(digits_run):
    net = resnetlab.load(digits_run)
    for image in (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.float32), torch.zeros(1, 8, 8)):
        with pytest.raises(DataError, match="say it: white=255"):
            net.predict(image)
    with pytest.raises(DataError, match="is no image; give"):
        net.predict([torch.zeros(8)], white=1)


def test_features_are_what_the_head_takes(digits_run):
    net = resnetlab.load(digits_run)
    batch = torch.randn(3, 1, 8, 8)
    features = net.features(batch)
    assert features.shape == (3, net.net.num_features)
    with torch.inference_mode():
        assert torch.equal(net.net.forward_head(net.net.forward_features(batch)), net.logits(batch))
    assert not features.requires_grad
    assert not net.net.training


def test_results_are_those_of_the_record(digits_run):
    for which, epoch in (("last", "final"), ("best", "best")):
        net = resnetlab.load(digits_run, checkpoint=which)
        from resnetlab.core.serialize import read_record
        from resnetlab.records.run import RunRecord

        found = getattr(read_record(RunRecord, digits_run / "record.json"), epoch).reported
        assert net.results == {"split": "test", "accuracy": 1 - found.error, "loss": found.loss, "n": found.n}


@pytest.fixture
def copy(digits_run, tmp_path):
    """A copy of the run, and a function that changes its note of the data as an older run's would be: unvouched for."""
    shutil.copytree(digits_run, tmp_path / "run")

    def change(**values):
        noted = json.loads((tmp_path / "run" / DATA).read_text()) | values
        (tmp_path / "run" / DATA).write_text(json.dumps({k: v for k, v in noted.items() if v != "none"}))
        (tmp_path / "run" / "run.json").unlink(missing_ok=True)
        return tmp_path / "run"

    return change


def test_an_older_run_on_digits_or_files_has_its_white(copy):
    assert resnetlab.load(copy(white="none")).preprocessing.white == 16
    assert resnetlab.load(copy(white="none", source="folder:x")).preprocessing.white == 255


@pytest.mark.parametrize("source", ["npz:x.npz", "idx:x"])
def test_an_older_run_on_arrays_is_asked_for_its_white(copy, source):
    run = copy(white="none", source=source)
    with pytest.raises(DataError, match=r"does not say which value was white.*--white 255"):
        resnetlab.load(run)
    assert resnetlab.load(run, white=16).preprocessing.white == 16
    with pytest.raises(DataError, match="does not say"):
        resnetlab.load(copy(white=None, source=source))


def test_another_white_than_the_run_knows_is_refused(digits_run):
    assert resnetlab.load(digits_run, white=16).preprocessing.white == 16
    with pytest.raises(ConfigError, match=r"white=255 is not possible.*white is 16"):
        resnetlab.load(digits_run, white=255)


@pytest.mark.parametrize(
    "values",
    [{"classes": "none"}, {"shape": "none"}, {"mean": "none"}, {"mean": 3}, {"sd": ["x"]}, {"shape": [1, 8]}],
    ids=str,
)
def test_a_damaged_note_of_the_data_is_told(copy, values):
    with pytest.raises(DataError, match=r"data.json is damaged|data.json"):
        resnetlab.load(copy(**values))


@pytest.mark.parametrize("text", ["", "[]", "null", "{"])
def test_a_note_that_is_none_is_told(copy, text):
    run = copy()
    (run / DATA).write_text(text)
    with pytest.raises(DataError, match=r"data.json"):
        resnetlab.load(run)
    (run / DATA).unlink()
    with pytest.raises(DataError, match=r"data.json"):
        resnetlab.load(run)


def test_an_edited_recipe_is_refused(digits_run, tmp_path):
    shutil.copytree(digits_run, tmp_path / "run")
    text = (tmp_path / "run" / RECIPE).read_text()
    (tmp_path / "run" / RECIPE).write_text(text.replace("seed: 0", "seed: 1"))
    with pytest.raises((ConfigError, DataError), match="is not as the run left it"):
        resnetlab.load(tmp_path / "run")


def test_what_is_no_run_and_a_damaged_checkpoint_are_told(digits_run, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no run.*no bundle"):
        resnetlab.load(tmp_path)
    shutil.copytree(digits_run, tmp_path / "run")
    for weights in (tmp_path / "run").glob("*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        resnetlab.load(tmp_path / "run")


def test_white_of_the_data(tmp_path):
    """16 for the digits; of arrays as they say, or None for those that use the lower half alone."""
    assert load_data("digits").white == 16
    labels = np.arange(20) % 2
    for most, scale, white in ((255, "", 255), (16, "", None), (16, "#scale=0..16", 255)):
        images = np.random.default_rng(0).integers(0, most + 1, (20, 4, 4)).astype(np.uint8)
        images[0, 0, 0] = most
        np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        assert load_data(f"npz:{tmp_path / 'a.npz'}{scale}").white == white
