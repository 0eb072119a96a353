import pytest
import torch
from safetensors.torch import save_file

from resnetlab.core.errors import CheckpointError, ConfigError
from resnetlab.models.weights import adapt_channels, export_weights, inspect_weights, load_weights
from resnetlab.models.zoo import create_model

SMALL = {"widths": [4, 8, 16, 32], "num_classes": 5}


def small(seed=0, **settings):
    return create_model("resnet18", seed=seed, **(SMALL | settings)).eval()


def snapshot(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


def same(net, before):
    return all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pt", "th"])
@pytest.mark.parametrize("dialect", ["resnetlab", "torchvision"])
def test_files_load_into_the_same_function(tmp_path, suffix, dialect):
    theirs, ours = small(seed=1), small()
    path = tmp_path / f"net.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(export_weights(theirs, dialect), path)
    report = load_weights(ours, path)
    assert report.origin == str(path)
    assert report.dialect == dialect
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_wrappers_of_training_scripts_are_taken_off(tmp_path, wrapper, legacy):
    theirs, ours = small(seed=1), small()
    weights = {f"module.{name}": value for name, value in export_weights(theirs, "torchvision").items()}
    path = tmp_path / "checkpoint.pth"
    torch.save({wrapper: weights, "epoch": 3, "best": 0.9}, path, _use_new_zipfile_serialization=not legacy)
    load_weights(ours, path)
    assert same(ours, snapshot(theirs))


def test_run_folders_load(tmp_path, data):
    from resnetlab.core.files import replace_folder
    from resnetlab.train.checkpoint import Checkpoint, pack

    theirs, ours = small(seed=1), small()
    checkpoint = Checkpoint(model=theirs.state_dict(), training={}, history=[])
    replace_folder(tmp_path / "run" / "last", pack(checkpoint))
    for folder in (tmp_path / "run", tmp_path / "run" / "last"):
        ours = small()
        assert len(load_weights(ours, folder).matched) == len(ours.state_dict())
        assert same(ours, snapshot(theirs))
    weights = tmp_path / "run" / "last" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(ours, tmp_path / "run")


def test_run_that_averages_keeps_the_average_and_the_raw_weights_beside_it(tmp_path, data):
    from resnetlab.core.files import replace_folder
    from resnetlab.train.checkpoint import Checkpoint, pack

    average, raw = small(seed=1), small(seed=2)
    training = {f"raw/{name}": value for name, value in raw.state_dict().items()}
    checkpoint = Checkpoint(model=average.state_dict(), training=training, history=[])
    replace_folder(tmp_path / "last", pack(checkpoint))
    ours = small()
    report = load_weights(ours, tmp_path)
    assert same(ours, snapshot(average))
    assert (report.which, report.skipped) == ("ema", ("raw",))
    load_weights(ours, tmp_path, which="raw")
    assert same(ours, snapshot(raw))
    assert [(found.label, found.average) for found in inspect_weights(tmp_path)] == [("ema", True), ("raw", False)]


def test_report_accounts_for_every_key():
    net = small(in_chans=1, num_classes=7)
    weights = export_weights(small(seed=1), "torchvision")
    report = load_weights(net, weights, reset_head=True, adapt_input=True)
    assert report.adapted == (("stem.conv.weight", "3 input channels to 1: summed"),)
    assert report.skipped == ("fc.weight", "fc.bias")
    assert report.missing == ("head.weight", "head.bias")
    assert len(report.renamed) + 1 + 2 == len(net.state_dict()) == len(weights)
    text = str(report)
    assert "names of torchvision; 0 matched, " in text
    assert "adapted stem.conv.weight" in text
    assert "skipped fc.weight, fc.bias" in text


@pytest.mark.parametrize(("classes", "flag"), [(7, "reset_head=True"), (0, "reset_head=True")])
def test_another_number_of_classes_is_refused_unless_asked_for(classes, flag):
    net, weights = small(num_classes=classes), export_weights(small(seed=1), "torchvision")
    before = snapshot(net)
    with pytest.raises(CheckpointError, match=flag):
        load_weights(net, weights)
    assert same(net, before)
    load_weights(net, weights, reset_head=True)
    changed = {key for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert "stem.conv.weight" in changed
    assert not changed & {"head.weight", "head.bias"}


def test_weights_without_a_head_need_the_flag():
    weights = export_weights(small(seed=1, num_classes=0), "torchvision")
    with pytest.raises(CheckpointError, match=r"'fc.weight' is missing; pass reset_head=True"):
        load_weights(small(), weights)
    assert load_weights(small(), weights, reset_head=True).missing == ("head.weight", "head.bias")


def test_nets_without_a_block_load_too():
    theirs, ours = (create_model("mlp_resnet2", seed=seed) for seed in (1, 2))
    assert load_weights(ours, theirs.state_dict()).missing == ()
    assert same(ours, snapshot(theirs))


def test_flags_change_nothing_where_all_fits():
    theirs, ours = small(seed=1), small()
    report = load_weights(ours, theirs.state_dict(), reset_head=True, adapt_input=True)
    assert (report.adapted, report.skipped, report.missing) == ((), (), ())
    assert same(ours, snapshot(theirs))


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_adapted_input_gives_the_same_logits_for_equal_channels(channels):
    theirs, ours = small(seed=1), small(in_chans=channels)
    with pytest.raises(CheckpointError, match="adapt_input=True"):
        load_weights(ours, theirs.state_dict())
    load_weights(ours, theirs.state_dict(), adapt_input=True)
    grey = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(
        ours(grey.expand(-1, channels, -1, -1)), theirs(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
    )


def test_tiling_is_that_of_a_hand_solved_case():
    weight = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    assert adapt_channels(weight, 1).flatten().tolist() == [6.0]
    assert adapt_channels(weight, 6).flatten().tolist() == [0.5, 1.0, 1.5, 0.5, 1.0, 1.5]
    # 1.5 and 3 lack 1.5 of the sum; 0.75, 1.5, 2.25 and 0.75 lack 0.75.
    assert adapt_channels(weight, 2).flatten().tolist() == [2.25, 3.75]
    assert adapt_channels(weight, 4).flatten().tolist() == [0.9375, 1.6875, 2.4375, 0.9375]


@pytest.mark.parametrize("before", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize("after", [1, 2, 3, 4, 5, 6, 10, 12])
def test_equal_channels_give_the_same_map_from_every_number_to_every_other(before, after):
    weight, plane = torch.randn(5, before, 3, 3).double(), torch.randn(1, 1, 8, 8)
    expected = torch.conv2d(plane.expand(1, before, 8, 8).double(), weight)
    found = torch.conv2d(plane.expand(1, after, 8, 8), adapt_channels(weight, after))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_counters_may_be_missing():
    theirs, ours = small(seed=1), small()
    weights = {k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")}
    report = load_weights(ours, weights)
    assert len(report.missing) == len(theirs.state_dict()) - len(weights) > 0
    del weights["stem.norm.running_mean"]
    with pytest.raises(CheckpointError, match=r"'stem.norm.running_mean' is missing"):
        load_weights(ours, weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {"layer5.0.conv1.weight": torch.zeros(2)}, "has no place in the network"),
        (lambda w: {k: v for k, v in w.items() if k != "layer2.0.conv1.weight"}, "'layer2.0.conv1.weight' is missing"),
        (lambda w: w | {"layer2.0.conv1.weight": torch.zeros(8, 4, 5, 5)}, r"shape \(8, 4, 5, 5\)"),
        (lambda w: w | {"bn1.bias": torch.zeros(4, dtype=torch.int64)}, "kind of number"),
        # A trillion numbers that share one: refused by its shape, never taken apart.
        (lambda w: w | {"bn1.bias": torch.zeros(1).expand(10**12)}, r"shape \(1000000000000,\)"),
        (lambda w: {k.replace("layer", "part"): v for k, v in w.items()}, "no known project"),
        (lambda w: w | {"bn1.bias": torch.zeros(4).to_sparse()}, "not a dense tensor"),
        (lambda w: w | {"bn1.bias": 3}, "is a int"),
        (lambda _: {}, "holds no tensors"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(change, message):
    net = small()
    before = snapshot(net)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(net, change(export_weights(small(seed=1), "torchvision")))
    assert caught.value.exit_code == 4
    assert same(net, before)


def test_akamaster_weights_into_appended_zeros_are_refused_with_the_remedy():
    weights = export_weights(create_model("cifar_resnet8", pad="center"), "akamaster")
    with pytest.raises(CheckpointError, match=r"create_model\(…, pad='center'\)"):
        load_weights(create_model("cifar_resnet8"), weights)
    load_weights(create_model("cifar_resnet8", pad="center"), weights)


def test_network_without_memory_is_refused():
    with pytest.raises(ConfigError, match="meta device"):
        load_weights(create_model("resnet18", device="meta"), {})


def test_half_precision_weights_load_as_the_networks_own_kind():
    theirs, ours = small(seed=1), small()
    load_weights(ours, {k: v.half() if v.is_floating_point() else v for k, v in theirs.state_dict().items()})
    assert ours.stem.conv.weight.dtype == torch.float32
    torch.testing.assert_close(ours.stem.conv.weight, theirs.stem.conv.weight, rtol=1e-3, atol=1e-3)


def test_inspect_counts_parameters_and_classes():
    net = small()
    (found,) = inspect_weights(export_weights(net, "torchvision"))
    assert (found.dialect, found.classes) == ("torchvision", 5)
    assert found.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert [found.classes for found in inspect_weights(small(num_classes=0).state_dict())] == [0]


def test_missing_and_strange_paths_are_refused(tmp_path):
    for path, message in (
        (tmp_path / "none.pth", "does not exist"),
        (tmp_path, "holds no checkpoint"),
        (tmp_path / "weights.npz", "was refused: it is damaged, or no file of weights"),
    ):
        if path.suffix == ".npz":
            path.write_bytes(b"x")
        with pytest.raises(CheckpointError, match=message):
            load_weights(small(), path)
