"""A bundle is what it was, or verify says what differs: a damaged file, a changed weight, a wrong preprocessing."""

import sys
from dataclasses import replace
from shutil import copytree

import numpy as np
import pytest
from PIL import Image

from resnetlab.cli import main
from resnetlab.core.errors import CheckpointError, ConfigError
from resnetlab.core.stats import wilson_share
from resnetlab.deploy.bundle import read_bundle, seal
from resnetlab.deploy.engines import open_predictor
from resnetlab.deploy.golden import UPSIDE, read_golden
from resnetlab.deploy.verify import verify, verify_engine
from tests.deploy.wrong_ways import FAULTS, Wrong, right


def found_faults(folder):
    bundle, predictor = read_bundle(folder), open_predictor(folder, "torch")
    found = set()
    for name, how in FAULTS.items():
        wrong = replace(predictor, preprocessing=Wrong.of(predictor.preprocessing, how))
        try:
            verify_engine(wrong, bundle, folder)
        except CheckpointError:
            found.add(name)
    return found


def test_every_wrong_preprocessing_is_found_by_golden_images_and_not_by_accuracy(photos, photos_bundle):
    assert found_faults(photos_bundle) == set(FAULTS)
    predictor = open_predictor(photos_bundle, "torch")
    paths = sorted(photos.rglob("*.png"))
    labels = np.array([predictor.classes.index(path.parent.name) for path in paths])

    def right_answers(preprocessing):
        pixels = np.stack([preprocessing.pixels(path) for path in paths])
        return int((predictor.logits(pixels).argmax(1) == labels).sum())

    count = right_answers(predictor.preprocessing)
    interval = wilson_share(count, len(paths))
    assert interval.low > 0.9, "a net that has learnt nothing shows nothing"
    shares = {name: right_answers(Wrong.of(predictor.preprocessing, how)) / len(paths) for name, how in FAULTS.items()}
    seen = {name for name, share in shares.items() if not interval.low <= share <= interval.high}
    assert len(seen) <= 5, shares


def test_control_the_right_preprocessing_written_by_hand_passes(photos_bundle):
    predictor = open_predictor(photos_bundle, "torch")
    by_hand = replace(predictor, preprocessing=Wrong.of(predictor.preprocessing, right))
    assert verify_engine(by_hand, read_bundle(photos_bundle), photos_bundle).n == 32


def test_every_fault_is_found_too_where_all_images_have_the_side_of_the_network(bundle):
    assert {image.shape for image in sizes(bundle)} == {(8, 8), (32, 32)}
    assert found_faults(bundle) == set(FAULTS)


def sizes(folder):
    return [np.asarray(Image.open(folder / image.file)) for image in read_golden(read_bundle(folder), folder).images]


def test_golden_images_have_their_own_size_and_every_eighth_lies_on_its_side(photos, photos_bundle):
    images = read_golden(read_bundle(photos_bundle), photos_bundle).images
    originals = {np.asarray(Image.open(path)).tobytes() for path in photos.rglob("*.png")}
    for number, kept in enumerate(images):
        image = Image.open(photos_bundle / kept.file)
        turned = number % 8 == 7
        assert image.getexif().get(UPSIDE) == (6 if turned else None)
        pixels = np.asarray(image)
        assert (np.rot90(pixels, -1) if turned else pixels).tobytes() in originals


def test_untouched_bundle_passes_on_every_engine(bundle, capsys):
    found = {one.engine: one for one in verify(bundle)}
    assert set(found) == {"torch", "onnx", "openvino", "pt2"}
    assert all(one.n == 32 and one.difference <= 1e-5 and not one.missing for one in found.values())
    for engine in ("onnx", "openvino"):
        assert main(["verify", str(bundle), "--engine", engine]) == 0
    assert "openvino: 32 of 32 golden images" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["model.safetensors", "onnx/model.onnx", "golden/003.png", "README.md"])
def test_changed_file_is_named(bundle, tmp_path, capsys, file):
    copytree(bundle, tmp_path / "copy")
    path = tmp_path / "copy" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(["verify", str(tmp_path / "copy")]) == 4
    assert file in capsys.readouterr().err


def test_weights_that_were_changed_and_sealed_again_are_found_by_their_logits(bundle, tmp_path):
    from safetensors.torch import load_file, save_file

    copytree(bundle, tmp_path / "copy")
    path = tmp_path / "copy" / "model.safetensors"
    tensors = load_file(path)
    tensors["head.bias"][3] += 0.05
    save_file(tensors, path)
    seal(read_bundle(bundle), tmp_path / "copy")
    with pytest.raises(CheckpointError, match=r"logits of 32 of the 32 .*golden/000.png: .*29 more"):
        verify(tmp_path / "copy", "torch")
    assert verify(tmp_path / "copy", "onnx")[0].difference <= 1e-5


def test_engine_that_is_not_installed_is_said_and_the_others_are_compared(bundle, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["verify", str(bundle)]) == 0
    printed = capsys.readouterr().out
    assert "openvino: not tried: the engine openvino needs openvino" in printed
    assert printed.count("32 of 32") == 3
    assert main(["verify", str(bundle), "--engine", "openvino"]) == 5


def test_engine_that_the_bundle_has_not_and_folder_that_is_none(photos_bundle, tmp_path):
    with pytest.raises(ConfigError, match="was not exported to onnx"):
        verify(photos_bundle, "onnx")
    with pytest.raises(CheckpointError, match="holds no bundle"):
        verify(tmp_path)


def test_bundle_that_names_files_outside_its_folder_is_refused(bundle, tmp_path):
    copytree(bundle, tmp_path / "copy")
    path = tmp_path / "copy" / "bundle.json"
    path.write_text(path.read_text().replace('"README.md"', '"../README.md"'))
    with pytest.raises(CheckpointError, match="outside its folder"):
        verify(tmp_path / "copy")


def test_digits_have_the_range_of_their_grey_levels(bundle):
    """A white of the digits is 16; a golden image has it at 255."""
    assert read_bundle(bundle).preprocessing.white == 16
    assert max(image.max() for image in sizes(bundle)) == 255
