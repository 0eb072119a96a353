"""timm and transformers load a bundle in timm's layout: our logits, label names and preprocessing, of every name."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab.deploy.bundle import Bundle, seal
from resnetlab.deploy.formats import NOT_IN_TIMM, Job, write_timm
from resnetlab.deploy.load import TrainedNetwork, load
from resnetlab.deploy.preprocessing import Preprocessing
from resnetlab.models.vgg import VGG
from resnetlab.models.zoo import ROWS, create_model
from tests.deploy.zoo import condition

SIDE = 64
PREPROCESSING = Preprocessing(side=SIDE, channels=3, white=255, mean=(120.0, 110.0, 100.0), std=(60.0, 61.0, 62.0))
CLASSES = ("cat", "dog", "a 'quoted' class", "ü")
NAMES = [name for name in ROWS if name not in NOT_IN_TIMM]


def written(folder, name, **settings):
    """A bundle of the network, well-conditioned and with statistics of norms of its own, as after training."""
    settings = {"in_chans": 3, **settings}
    net = create_model(name, num_classes=len(CLASSES), image_size=SIDE, **settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if "running" in key or value.dim() == 1:
                value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.5)
    condition(net)
    if isinstance(net, VGG):
        # A sum of 25,088 products that cancel is mostly rounding, in timm's order another than in ours.
        for layer in (module for module in net.hidden if isinstance(module, torch.nn.Linear)):
            layer.weight.data.abs_()
    grey = settings["in_chans"] == 1
    preprocessing = Preprocessing(side=SIDE, channels=1, white=16, mean=(7.0,), std=(4.0,)) if grey else PREPROCESSING
    trained = TrainedNetwork(net=net.eval(), classes=CLASSES, preprocessing=preprocessing, model=name, origin=folder)
    bundle = Bundle(name=name, model=name, classes=CLASSES, preprocessing=preprocessing)
    write_timm(Job(trained=trained, bundle=bundle, folder=folder))
    seal(bundle, folder)
    return trained


def difference(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_timm_loads_every_name_that_it_has_and_gives_our_logits(timm, tmp_path, record_property, name):
    trained = written(tmp_path, name)
    net = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = difference(net(x), trained.net(x))
        # In float64 the order of a sum is no difference.
        exact = difference(net.double()(x.double()), trained.net.double()(x.double()))
    record_property("logits", f"{found:.1e}, in float64 {exact:.1e}")
    assert found <= 1e-5
    assert exact <= 1e-12
    trained.net.float()
    config = timm.data.resolve_model_data_config(net)
    assert tuple(config["input_size"]) == (3, SIDE, SIDE)
    assert config["mean"] == pytest.approx([value / 255 for value in PREPROCESSING.mean])
    assert (config["interpolation"], config["crop_pct"]) == ("bilinear", 1.0)
    assert tuple(net.pretrained_cfg["label_names"]) == CLASSES
    # And so do we, from timm's names.
    assert torch.equal(load(tmp_path, device="cpu").logits(x), trained.logits(x))


def test_timm_loads_grey_networks(timm, tmp_path):
    trained = written(tmp_path, "resnet18", in_chans=1)
    net = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(2, 1, SIDE, SIDE)
    with torch.no_grad():
        assert difference(net(x), trained.net(x)) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_pipeline_of_transformers_gives_our_logits_of_every_name(transformers, timm, tmp_path, name):
    trained = written(tmp_path, name)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).resize((SIDE, SIDE))
    pipeline = transformers.pipeline("image-classification", str(tmp_path), top_k=4)
    found = {row["label"]: row["score"] for row in pipeline(image, function_to_apply="none")}
    logits = torch.tensor([[found[name] for name in CLASSES]])
    assert difference(logits, trained.logits(trained.preprocess(image)[None])) <= 1e-5
    probable = {row["label"]: row["score"] for row in pipeline(image)}
    expected = trained.predict(image)
    assert probable == pytest.approx(dict(zip(expected.classes, expected.probabilities, strict=True)), abs=1e-5)


def test_control_another_architecture_does_not_load(timm, tmp_path):
    written(tmp_path, "resnet18")
    path = tmp_path / "config.json"
    plain = json.loads(path.read_text())
    plain["architecture"] = "resnet34"
    path.write_text(json.dumps(plain))
    with pytest.raises(RuntimeError, match="Missing key"):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
