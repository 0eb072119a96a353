"""The commands of docs/photos.md, on a small folder that is messy on purpose."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT


@pytest.fixture
def messy(tmp_path):
    """Three classes of small images of all sizes, colours, formats and turns, beside what is no image."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("red cats", "green dogs", "blau-ähnlich")):
        folder = tmp_path / "photos" / name / "more"
        folder.mkdir(parents=True)
        for number in range(14):
            pixels = rng.integers(0, 120, (*rng.integers(20, 40, 2), 3))
            pixels[..., label] += 100
            image = Image.fromarray(pixels.astype(np.uint8))
            exif = Image.Exif()
            exif[0x0112] = 6 if number % 3 == 0 else 1
            suffix = ("jpg", "png", "webp", "JPEG")[number % 4]
            image.save((folder if number % 2 else folder.parent) / f"{number}.{suffix}", exif=exif)
        (folder / "broken.jpg").write_bytes((folder / "1.png").read_bytes()[:200])
        (folder / "notes.txt").write_text("no image")
        (folder.parent / "Thumbs.db").write_bytes(b"x")
    image.save(tmp_path / "photo.jpg")
    return tmp_path


def test_the_four_commands_lead_from_a_messy_folder_to_a_network_that_is_used(messy, resnetlab):
    block = re.search(r"```sh\n(.*?)```", (ROOT / "docs" / "photos.md").read_text(), re.DOTALL)[1]
    commands = [shlex.split(line)[1:] for line in block.splitlines()]
    assert [words[0] for words in commands][:2] == ["data", "train"]
    assert len(commands) == 4
    for words in commands:
        done = resnetlab(*words, cwd=messy)
        # Inspection ends with the reasons for which training without --on-bad would refuse.
        assert done.returncode == (3 if words[0] == "data" else 0), done.stderr
    assert (
        "chosen: model cifar_resnet20"
        in resnetlab("train", "--data", "photos", "--on-bad", "skip", "--epochs", "1", cwd=messy).stderr
    )
    assert (messy / "runs" / "photos" / "report.html").is_file()
