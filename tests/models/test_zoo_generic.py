"""Every name of the zoo, by one and the same tests."""

import copy
import json
import re
from dataclasses import replace

import pytest
import torch

from resnetlab.models.architectures import config_from_plain, config_to_plain
from resnetlab.models.classifier import Classifier
from resnetlab.models.config import NetConfig
from resnetlab.models.init import build
from resnetlab.models.zoo import ROWS, create_model, list_models, model_config

NAMES = list_models()
SIDE = {"resnet": 8, "vgg": 32, "mlp": 8}
LIGHT, DEEP = 13_000_000, 1000
"""Parameters and layers from which on running a network for real is left to `make test-long`."""


def shallowest_alike(name: str) -> str:
    """Of the rows that differ from this one in depth alone the shallowest, which is run for real in its place."""

    def kind(row: str) -> NetConfig:
        config = ROWS[row].config
        return replace(config, depths=(1,) * len(config.depths))

    alike = [row for row in ROWS if kind(row) == kind(name)] if name in ROWS else [name]
    return min(alike, key=lambda row: ROWS[row].parameters) if len(alike) > 1 else name


def is_deep(name: str) -> bool:
    return name not in ROWS and int(re.findall(r"\d+", name)[-1]) >= DEEP


def marked(name: str):
    heavy = is_deep(name) or (name in ROWS and ROWS[name].parameters > LIGHT)
    return pytest.param(name, marks=pytest.mark.long) if heavy else name


SHAPE_NAMES = [pytest.param(name, marks=pytest.mark.long) if is_deep(name) else name for name in NAMES]
RUN_NAMES = [marked(name) for name in NAMES if shallowest_alike(name) == name]


def images(config, n: int = 2) -> torch.Tensor:
    side = config.image_size if config_to_plain(config)["kind"] == "mlp" else SIDE[config_to_plain(config)["kind"]]
    return torch.randn(n, config.in_chans, side, side)


def norm_of_shapes(x, mean, var, weight, bias, training, momentum, eps):
    """Batch norm that looks at shapes alone: on the meta device torch takes longer for it than for all else."""
    assert {mean.shape, var.shape, weight.shape, bias.shape} == {x.shape[1:2]}
    return x


@pytest.mark.parametrize("name", NAMES)
def test_config_round_trip_through_json_rebuilds_the_network(name):
    config = model_config(name, num_classes=7)
    again = config_from_plain(json.loads(json.dumps(config_to_plain(config))))
    assert again == config
    # Of the deeper ones an equal configuration tells it.
    if shallowest_alike(name) == name and not is_deep(name):
        nets = [build(one, seed=0, device="meta").state_dict() for one in (config, again)]
        assert [(k, v.shape) for k, v in nets[0].items()] == [(k, v.shape) for k, v in nets[1].items()]


@pytest.mark.parametrize("name", SHAPE_NAMES)
@torch.no_grad()
def test_every_name_classifies_and_its_features_and_heads_have_the_promised_shapes(name, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "batch_norm", norm_of_shapes)
    monkeypatch.setattr(torch.nn.functional, "relu", lambda x, **_: x)
    net = create_model(name, num_classes=7, device="meta").eval()
    config = net.config
    features = net.forward_features(
        torch.empty(2, config.in_chans, config.image_size, config.image_size, device="meta")
    )
    # A forward pass is the two in turn, for every network.
    assert type(net).forward is Classifier.forward
    assert net.forward_head(features).shape == (2, 7)
    assert net.pool_features(features).shape == (2, net.num_features)
    if shallowest_alike(name) == name:
        headless = create_model(name, num_classes=0, device="meta").eval()
        assert headless.forward_head(features).shape == (2, net.num_features)
    for classes in (5, 0, 7):
        net.reset_classifier(classes)
        assert net.config == model_config(name, num_classes=classes)
        assert net.forward_head(features).shape == (2, classes or net.num_features)


@pytest.fixture(scope="module", params=RUN_NAMES)
def for_real(request) -> Classifier:
    """Each network of the zoo with its weights, which two tests ask; or where 1,000 layers without a norm would
    overflow, the one that starts as the identity."""
    name = request.param
    return create_model(name, **({"zero_init_residual": True} if name == "mlp_resnet1000" else {}))


def test_forward_backward_and_copies(for_real):
    net = for_real
    x = images(net.config)
    net.train()(x).square().mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.zero_grad()
    net.eval()
    expected = net(x)
    assert expected.isfinite().all()
    assert torch.equal(copy.deepcopy(net)(x), expected)
    twin = build(net.config, seed=1, device="meta").to_empty(device="cpu").eval()
    # Not what lay in that memory before, which may have been a copy of the network.
    for value in twin.state_dict().values():
        value.zero_()
    # A saved network brings its BN statistics along.
    twin.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(twin(x), expected)


def test_intermediates_are_named_and_none_is_overwritten(for_real):
    # In training mode, since fresh BN statistics let 1,202 layers overflow; without dropout, which draws anew.
    net = for_real.train()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    x = images(net.config)
    with torch.no_grad():
        found = net.forward_intermediates(x)
        copies = {key: value.clone() for key, value in found.items()}
        logits = net(x)
    assert list(found) == ["stem", *(f"stages.{i}" for i in range(len(net.stages))), "features"]
    assert torch.equal(net.forward_head(found["features"]), logits)
    assert all(torch.equal(value, copies[key]) for key, value in found.items())


def test_reset_classifier_draws_the_head_that_create_model_draws():
    net = create_model("cifar_resnet8", num_classes=5, seed=3)
    reset = create_model("cifar_resnet8", num_classes=9, seed=3).reset_classifier(5, seed=3)
    assert torch.equal(net.head.weight, reset.head.weight)
    assert net.config == reset.config


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_preact_resnet20", "mlp_resnet8"])
def test_export_and_compile_give_the_same_logits(name):
    net = create_model(name).eval()
    x = images(net.config)
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x), net(x))
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(compiled(x), net(x))


def test_under_distributed_data_parallel_gradients_are_those_of_the_bare_network(tmp_path):
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        net, twin = create_model("cifar_resnet8"), create_model("cifar_resnet8")
        x = images(net.config)
        DistributedDataParallel(net)(x).sum().backward()
        twin(x).sum().backward()
        for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad)
    finally:
        distributed.destroy_process_group()
