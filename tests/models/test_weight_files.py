"""Files of weights of every format, by their content and not by their names; refusals of one line."""

import io
import pickle
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from resnetlab.core.errors import CheckpointError, MissingExtraError
from resnetlab.models.weights import export_weights, inspect_weights, load_weights
from resnetlab.models.zoo import create_model

KERAS = {"norm_eps": 1.001e-5, "conv_bias": True, "stride_in": "1x1", "widths": [4, 8, 16, 32], "num_classes": 5}


def small(seed=0):
    return create_model("resnet18", widths=[4, 8, 16, 32], num_classes=5, seed=seed)


def keras(seed=0):
    return create_model("resnet50", depths=[1, 1, 1, 1], seed=seed, **KERAS)


def save_legacy(weights, path):
    torch.save(weights, path, _use_new_zipfile_serialization=False)


def save_arrays(weights, path):
    with path.open("wb") as stream:
        np.savez(stream, **{name: value.numpy() for name, value in weights.items()})


def save_compressed(weights, path):
    with path.open("wb") as stream:
        np.savez_compressed(stream, **{name: value.numpy() for name, value in weights.items()})


@pytest.mark.parametrize("save", [save_file, torch.save, save_legacy, save_arrays, save_compressed])
@pytest.mark.parametrize("name", ["net.pth.tar", "last.ckpt", "pytorch_model.bin", "net", "net.t7", "model.weights"])
def test_a_suffix_is_no_reason_to_refuse(tmp_path, save, name):
    net, path = small(), tmp_path / name
    save(export_weights(small(1), "torchvision"), path)
    load_weights(net, path)
    assert torch.equal(net.head.weight, small(1).head.weight)


def test_a_folder_of_transformers_kind_is_read(tmp_path):
    torch.save(export_weights(small(1), "torchvision"), tmp_path / "pytorch_model.bin")
    net = small()
    load_weights(net, tmp_path)
    assert torch.equal(net.head.weight, small(1).head.weight)


@pytest.mark.parametrize("form", ["{}", "{}:0", "resnet50/{}:0"])
def test_arrays_of_keras_load_whatever_stands_around_their_names(tmp_path, form):
    weights = {form.format(name): value.numpy() for name, value in export_weights(keras(1), "keras").items()}
    np.savez(tmp_path / "net.npz", **weights)
    net = keras()
    report = load_weights(net, tmp_path / "net.npz")
    assert torch.equal(net.stem.conv.weight, keras(1).stem.conv.weight)
    assert torch.equal(net.head.weight, keras(1).head.weight)
    assert "its images are blue, green, red of 0 to 255" in str(report)
    assert [(one.dialect, one.classes) for one in inspect_weights(tmp_path / "net.npz")] == [("keras", 5)]


def test_keras_first_convolution_fits_other_channels_and_its_head_another_number_of_classes():
    weights = export_weights(keras(1), "keras")
    grey = create_model("resnet50", depths=[1, 1, 1, 1], in_chans=1, **(KERAS | {"num_classes": 7}))
    with pytest.raises(CheckpointError, match="'conv1_conv/kernel' takes 3 input channels, the network 1"):
        load_weights(grey, weights)
    report = load_weights(grey, weights, adapt_input=True, reset_head=True)
    assert report.skipped == ("predictions/kernel", "predictions/bias")
    torch.testing.assert_close(grey.stem.conv.weight, keras(1).stem.conv.weight.sum(dim=1, keepdim=True))


def test_files_of_hdf5_load_as_keras_lays_them_out(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs the extra keras")
    weights = export_weights(keras(1), "keras")
    for number, place in enumerate(("{0}/{0}/{1}:0", "model_weights/{0}/resnet50/{0}/{1}:0")):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            for name, value in weights.items():
                file[place.format(*name.split("/"))] = value.numpy()
            file["outside"] = h5py.ExternalLink("/etc/hostname", "/")
        net = keras()
        load_weights(net, path)
        assert torch.equal(net.head.weight, keras(1).head.weight)
    (tmp_path / "cut.h5").write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(keras(), tmp_path / "cut.h5")


def test_hdf5_without_its_extra_says_how_to_get_it(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    with pytest.raises(MissingExtraError, match=r"resnetlab\[keras\].* or save its arrays as .npz"):
        load_weights(keras(), tmp_path / "net.h5")


class Stranger:
    """A class that a checkpoint should not need."""


def bad_array():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("conv1.weight.npy", b"\x93NUMPY\x01\x00 nothing")
    return stream.getvalue()


def script():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("net/constants.pkl", b"")
        archive.writestr("net/data.pkl", b"")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.pth", pickle.dumps({"hparams": Stranger()}, 2), r"holds a [\w.]*Stranger, which is code to be called"),
        ("net.pth", b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "was refused: "),
        ("net.pth", b"", "is empty"),
        ("README.md", b"# Weights\n", "is a text, not weights"),
        ("net.pth", b"<!DOCTYPE html><html>", "is a text, not weights"),
        ("net.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer of Git LFS.*git lfs pull"),
        ("net.pth", b"\x00\x01\x02" * 99, "was refused: it is damaged"),
        ("net.pt", script(), "program of TorchScript"),
        ("net.npz", bad_array(), "'conv1.weight.npy' is damaged"),
    ],
)
def test_refusals_are_one_line_of_ours_with_the_way_out(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(small(), path)
    text = str(caught.value)
    assert "\n" not in text
    assert "\x1b" not in text
    assert not any(
        word in text for word in ("weights_only=True", "PyTorch 2.6", "WeightsUnpickler", "add_safe_globals")
    )


def test_options_of_argparse_are_read_and_are_attributes_alone(tmp_path):
    torch.save({"model": export_weights(small(1), "torchvision"), "args": Namespace(lr=0.1)}, tmp_path / "net.pth")
    net = small()
    load_weights(net, tmp_path / "net.pth")
    assert torch.equal(net.head.weight, small(1).head.weight)
    torch.save({"args": Namespace(model=Stranger())}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="Nothing in it was run"):
        load_weights(small(), tmp_path / "bad.pth")


def test_arrays_that_unpack_to_fill_the_memory_are_refused(tmp_path):
    path = tmp_path / "net.npz"
    np.savez_compressed(path, **{"layer1.0.conv1.weight": np.zeros((1, 2**25), "f4")})
    assert path.stat().st_size < 200_000
    for read in (inspect_weights, lambda source: load_weights(small(), source)):
        with pytest.raises(CheckpointError, match=r"unpacks from .* save the weights without compression"):
            read(path)


def test_an_array_that_says_more_than_it_holds_is_damaged(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(tmp_path / "net.npz", "w") as archive:
        archive.writestr("layer1.0.conv1.weight.npy", stream.getvalue())
    with pytest.raises(CheckpointError, match="is damaged"):
        inspect_weights(tmp_path / "net.npz")


def test_a_trillion_numbers_that_share_one_are_counted_once(tmp_path):
    torch.save({"layer1.0.conv1.weight": torch.full((1,), float("nan")).expand(10**12)}, tmp_path / "net.pth")
    (found,) = inspect_weights(tmp_path / "net.pth")
    assert found.not_finite == ("layer1.0.conv1.weight",)


def test_keras_3_is_told_how_to_keep_the_names_of_its_layers():
    with pytest.raises(CheckpointError, match=r"np\.savez\(FILE, \*\*\{w.path"):
        load_weights(keras(), {"layers/conv2d_5/vars/0": torch.zeros(2)})


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "net.npz", **{"layer1.0.conv1.weight": np.array([Stranger()])})
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        load_weights(small(), tmp_path / "net.npz")


def test_a_path_of_control_characters_is_escaped(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist") as caught:
        load_weights(small(), tmp_path / "a\x1b[31m\nb")
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_zip_whose_names_are_no_text_is_damaged(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"conv1.weight": torch.zeros(2)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("ä", b"")
    path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xff\xff"))
    with pytest.raises(CheckpointError, match=r"w\.pth is damaged"):
        load_weights(create_model("cifar_resnet8"), path)


def test_a_zip_of_several_disks_is_damaged(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"conv1.weight": torch.zeros(2)}, path)
    data = path.read_bytes()
    locator = data.index(b"PK\x06\x07")
    path.write_bytes(data[: locator + 16] + b"\x02" + data[locator + 17 :])
    with pytest.raises(CheckpointError, match=r"w\.pth is damaged"):
        load_weights(create_model("cifar_resnet8"), path)
