from resnetlab.core.config import command_of

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
