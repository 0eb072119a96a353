import os
import subprocess

import pytest

from resnetlab.core.config import command_of, quote

DEFAULTS = {"model": "a", "options": {}, "training": {"epochs": 8, "flip": False, "augment": {"scale": [0.1, 1.0]}}}


def test_command_names_what_is_not_the_default_however_deep():
    settings = {
        "model": "b",
        "options": {"norm": "layer", "a b": "1"},
        "training": {"epochs": 8, "flip": True, "augment": {"scale": [0.2, 1.0]}},
    }
    assert command_of("train", "RUN", settings, DEFAULTS) == (
        "resnetlab train --out RUN --model b --options norm layer 'a b' 1 --flip --scale 0.2 1.0"
    )
    assert command_of("train", "RUN", DEFAULTS, DEFAULTS) == "resnetlab train --out RUN"


def test_record_of_another_version_names_the_setting_that_is_gone():
    old = {"model": "a", "training": {"epochs": 8, "crop_padding": 4, "flip": True}}
    assert command_of("train", "RUN", old, DEFAULTS) == "resnetlab train --out RUN --crop-padding 4 --flip"
    assert command_of("train", "RUN", old | {"training": {"flip": True}}, DEFAULTS | {"training": {"flip": True}}) == (
        "resnetlab train --out RUN"
    )
    assert "--no-flip" in command_of("train", "RUN", {"flip": False}, {"flip": True})


@pytest.mark.parametrize("word", ["a b", "it's", "\x1b[31m", "new\nline 'x' \\", "byte\udcff", "犬\u202e", "-rf"])
def test_quoted_word_is_printable_and_is_the_same_word_to_a_shell(word):
    quoted = quote(word)
    assert quoted.isprintable()
    echoed = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True).stdout
    assert os.fsdecode(echoed) == word
