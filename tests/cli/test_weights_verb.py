import argparse
import shlex

import torch
from safetensors.torch import load_file

from resnetlab.models.weights import export_weights, load_weights
from resnetlab.models.zoo import create_model

SETTINGS = ("--set", "widths=[4, 8, 16, 32]")


def small(**settings):
    return create_model("resnet18", widths=[4, 8, 16, 32], **settings)


def test_help_shows_both_actions_and_their_words(run):
    assert "inspect" in run("weights", "--help")[1]
    assert "IN OUT" in run("weights", "convert", "--help")[1]
    assert run("weights", "inspect", "--help")[0] == 0


def test_inspect_shows_names_shapes_parameters_and_classes(run, tmp_path):
    net = small(num_classes=7)
    torch.save({"state_dict": export_weights(net, "torchvision")}, tmp_path / "net.pth")
    code, out, _ = run("weights", "inspect", tmp_path / "net.pth")
    assert code == 0
    rows = [line.split() for line in out.splitlines()[:122]]
    assert ["conv1.weight", "4×3×7×7"] in rows
    assert rows == sorted(rows)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert out.splitlines()[-2:] == [
        "architecture: not said, and names and shapes cannot tell it",
        f"state_dict: names of torchvision; 122 tensors, {count:,} parameters, 7 classes",
    ]


def test_an_average_beside_the_raw_weights_is_shown_and_chosen(run, tmp_path):
    raw, average = small(seed=1), small(seed=2)
    content = {"state_dict": export_weights(raw, "torchvision"), "state_dict_ema": export_weights(average, "timm")}
    path, out = tmp_path / "net.pth.tar", tmp_path / "out.safetensors"
    torch.save(content | {"args": argparse.Namespace(lr=0.1)}, path)
    code, printed, _ = run("weights", "inspect", path)
    assert code == 0
    assert [line.partition(":")[0] for line in printed.splitlines() if "122 tensors" in line] == [
        "state_dict",
        "state_dict_ema, an average",
    ]
    convert = ("weights", "convert", path, out, "--to", "safetensors", "--model", "resnet18", *SETTINGS)
    code, _, errors = run(*convert)
    assert (code, errors.count("\n")) == (4, 1)
    assert "--which ema" in errors
    assert not out.exists()
    code, printed, _ = run(*convert, "--which", "ema")
    assert (code, "names of torchvision under state_dict_ema" in printed) == (0, True)
    assert torch.equal(load_file(out)["head.weight"], average.head.weight)


def test_convert_there_and_back_keeps_every_value(run, tmp_path):
    net = small(seed=1)
    torch.save(net.state_dict(), tmp_path / "ours.pt")
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    words = ("--model", "resnet18", *SETTINGS)
    code, out, errors = run("weights", "convert", tmp_path / "ours.pt", there, "--to", "torchvision", *words)
    assert (code, errors) == (0, "")
    assert "names of resnetlab; 122 matched" in out
    assert "layer4.1.bn2.running_var" in load_file(there)
    assert run("weights", "convert", there, back, "--to", "safetensors", *words)[0] == 0
    assert all(torch.equal(value, load_file(back)[key]) for key, value in net.state_dict().items())
    load_weights(small(), back)


def test_wrong_words_and_files_give_one_message_and_their_exit_code(run, tmp_path):
    weights, out = tmp_path / "net.pth", tmp_path / "out.safetensors"
    torch.save(export_weights(small(), "torchvision"), weights)
    (tmp_path / "bad.pth").write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    convert = ("weights", "convert", weights, out, "--to", "timm", "--model")
    for words, code, message in (
        (("weights", "inspect", tmp_path / "bad.pth"), 4, "Nothing in it was run"),
        (("weights", "inspect", tmp_path / "none.pth"), 4, "does not exist"),
        ((*convert, "resnet18"), 4, "does not fit this network"),
        ((*convert, "resnet35"), 2, "resnet34"),
        ((*convert, "resnet18", *SETTINGS, "num_classes=3"), 4, "--reset-head"),
        ((*convert, "resnet18", "--set", "widths"), 2, "setting=value"),
        ((*convert, "resnetv2_18", *SETTINGS), 4, "no network of kind 'pre'"),
        (
            ("weights", "convert", weights, tmp_path / "out.pth", "--to", "timm", "--model", "resnet18"),
            2,
            "safetensors",
        ),
        (("weights",), 2, "inspect"),
    ):
        found, _, errors = run(*words)
        assert (found, message in errors) == (code, True), (words, errors)
        assert not out.exists()


def test_inspecting_loads_no_matplotlib():
    from tests.contracts.test_house import loaded_by

    code = "from resnetlab.cli import main\ntry: main(['weights', '--help'])\nexcept SystemExit: pass"
    assert not loaded_by(code)[0] & {"torch", "matplotlib", "numpy"}


def test_setting_that_is_no_yaml_is_one_message(run, tmp_path):
    code, _, errors = run(
        "weights",
        "convert",
        "a.pth",
        tmp_path / "b.safetensors",
        "--to",
        "timm",
        "--model",
        "resnet18",
        "--set",
        "widths=[",
    )
    assert code == 2
    assert errors.startswith("error: option widths cannot be read: ")
    assert errors.count("\n") == 1


def test_prune_keeps_the_smaller_net_of_a_run_and_says_what_it_costs(run, tmp_path):
    trained, out = tmp_path / "run", tmp_path / "smaller"
    words = ("--model", "cifar_resnet20", "--options", "widths", "[4,8,16]", "stem_width", "4")
    assert run("train", *words, "--max-steps", "4", "--batch-size", "256", "--quiet", "--out", trained)[0] == 0
    prune = ("weights", "prune", trained, "--out", out, "--checkpoint", "best", "--without")
    code, _, errors = run(*prune, "stages.2.0")
    assert (code, "changes the shape" in errors, "stages.2.1, stages.2.2" in errors) == (2, True, True)
    code, printed, errors = run(*prune, "stages.2.1", "stages.2.2")
    assert (code, errors) == (0, "")
    first, figures, size, command = printed.splitlines()
    assert first == "without stages.2.1, stages.2.2:"
    assert "→" in figures
    assert figures.endswith("n 360")
    sizes = [
        sum(p.numel() for p in create_model("cifar_resnet20", widths=[4, 8, 16], stem_width=4, **more).parameters())
        for more in ({"in_chans": 1}, {"in_chans": 1, "depths": [3, 3, 1]})
    ]
    assert size.startswith(f"parameters {sizes[0]:,} → {sizes[1]:,}; ")
    assert run(*prune, "stages.2.1")[0] == 2, "the folder is taken"
    again = shlex.split(command.partition(": resnetlab ")[2].replace("NEW", str(tmp_path / "again")))
    assert run(*again, "--max-steps", "2", "--quiet")[0] == 0
    options = again[again.index("--options") : again.index("--weights")]
    words = ("--model", "cifar_resnet20", *options)
    code, printed, _ = run("diagnose", out, *words, "--what", "lesion", "--images", "50", "--out", tmp_path / "seen")
    assert (code, "lesion" in printed) == (0, True)


def test_convert_offers_every_project():
    from typing import get_args

    from resnetlab.cli.weights import Project
    from resnetlab.models.dialects import DIALECTS

    assert get_args(Project) == (*DIALECTS[1:], "safetensors")
