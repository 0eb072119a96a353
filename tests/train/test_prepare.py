"""Frozen parts, rates by part, compilation and segments: what changes, and what must not."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from resnetlab.core.errors import ConfigError
from resnetlab.data.config import AugmentConfig
from resnetlab.models.recompute import SegmentedStage, segment_length
from resnetlab.models.zoo import create_model
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import fit
from resnetlab.train.optim import make_optimizer, set_rate
from resnetlab.train.prepare import make_loader, prepare
from tests.train.runs import DYNAMO, StopAfter, tiny_net

BASE = TrainConfig(epochs=2, batch_size=16, augment=AugmentConfig(crop_padding=1))


def differing(first: nn.Module, second: nn.Module) -> set[str]:
    theirs = second.state_dict()
    return {name for name, value in first.state_dict().items() if not torch.equal(value, theirs[name])}


@pytest.mark.parametrize(("up_to", "frozen"), [("stem", ("stem",)), ("stages.1", ("stem", "stages.0", "stages.1"))])
@pytest.mark.parametrize("segments", [None, 1])
def test_frozen_parts_keep_every_bit_and_all_else_changes(tmp_path, data, up_to, frozen, segments):
    before, net = tiny_net(), tiny_net()
    fit(net, data, replace(BASE, freeze=up_to, checkpoint_blocks=segments), seed=0, out=tmp_path)
    expected = {name for name in net.state_dict() if not name.startswith(tuple(f"{part}." for part in frozen))}
    assert differing(net, before) == expected
    slots = {name.split("/")[1] for name in read_checkpoint(tmp_path / "last").training}
    assert slots == expected & {name for name, _ in net.named_parameters()}


def test_part_that_is_none_is_refused_with_those_that_are(data):
    with pytest.raises(ConfigError, match=r"'stages.7' is not possible: .* stem, stages.0, stages.1, stages.2"):
        fit(tiny_net(), data, replace(BASE, freeze="stages.7"), seed=0)
    with pytest.raises(ConfigError, match="create_model"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), data, replace(BASE, freeze="stem"), seed=0)


@pytest.mark.parametrize("decay_all", [False, True])
def test_head_has_its_own_rate_and_norms_decay_where_asked(decay_all):
    net = tiny_net()
    optimizer = make_optimizer(net, replace(BASE, lr=0.1, head_lr=0.5, decay_all=decay_all, weight_decay=0.01))
    set_rate(optimizer, 0.02)
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(of) == len(list(net.parameters()))
    for name, parameter in net.named_parameters():
        assert of[id(parameter)]["lr"] == pytest.approx(0.1 if name.startswith("head.") else 0.02), name
        assert of[id(parameter)]["weight_decay"] == (0.01 if decay_all or parameter.dim() > 1 else 0.0), name


def test_a_slower_head_moves_less(data):
    """One step: of SGD without momentum, a tenth of the rate is a tenth of the way."""
    config = replace(BASE, max_steps=1, schedule="constant", momentum=0.0, nesterov=False, lr=0.1)
    start, whole, slow = tiny_net(), tiny_net(), tiny_net()
    fit(whole, data, config, seed=0)
    fit(slow, data, replace(config, head_lr=0.01), seed=0)
    assert differing(whole, slow) == {"head.weight", "head.bias"}
    far, near = (net.head.weight - start.head.weight for net in (whole, slow))
    torch.testing.assert_close(near, far / 10, rtol=1e-4, atol=1e-7)


@pytest.mark.filterwarnings(DYNAMO)
@pytest.mark.parametrize("config", [BASE, replace(BASE, ema=0.9)], ids=["net", "average"])
def test_compiled_net_has_the_names_and_with_an_eager_backend_the_bits(tmp_path, data, monkeypatch, config):
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    compile_net = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda net, **_: compile_net(net, backend=backend))
    torch._dynamo.reset()
    plain, compiled = tiny_net(), tiny_net()
    fit(plain, data, replace(config, epochs=1), seed=0, out=tmp_path / "plain")
    fit(compiled, data, replace(config, epochs=1, compile=True), seed=0, out=tmp_path / "compiled")
    assert calls
    assert differing(plain, compiled) == set()
    ours, theirs = (read_checkpoint(tmp_path / run / "last") for run in ("plain", "compiled"))
    assert ours.model.keys() == theirs.model.keys() == plain.state_dict().keys()
    assert ours.training.keys() == theirs.training.keys()


@pytest.mark.parametrize("every", ["auto", 1, 2])
def test_segments_change_no_bit_of_a_run_nor_of_a_resumed_one(tmp_path, data, every):
    def make() -> nn.Module:
        return tiny_net("cifar_resnet14", dropout=0.2)

    plain, segmented, resumed = make(), make(), make()
    config = replace(BASE, checkpoint_blocks=every, save_every=2)
    expected = fit(plain, data, BASE, seed=0, out=tmp_path / "plain")
    history = fit(segmented, data, config, seed=0)
    assert all(type(stage) is SegmentedStage for stage in segmented.stages)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), data, config, seed=0, out=tmp_path / "cut", callback=StopAfter(9))
    fit(resumed, data, config, seed=0, out=tmp_path / "cut")
    assert [e.test for e in history] == [e.test for e in expected]
    assert differing(segmented, plain) == differing(resumed, plain) == set()
    ours, theirs = (read_checkpoint(tmp_path / run / "last") for run in ("plain", "cut"))
    assert ours.model.keys() == theirs.model.keys()
    assert ours.training.keys() == theirs.training.keys()
    # And a checkpoint of the one is one of the other.
    again = make()
    fit(again, data, replace(BASE, epochs=2), seed=0, out=tmp_path / "cut")
    assert differing(again, plain) == set()


def test_preparing_twice_is_preparing_once():
    once, twice = tiny_net(), tiny_net()
    config = replace(BASE, checkpoint_blocks=1, sync_bn=True, freeze="stem")
    prepare(once, config)
    prepare(twice, config)
    prepare(twice, config)
    assert str(once) == str(twice)
    assert copy.deepcopy(once).state_dict().keys() == tiny_net().state_dict().keys()


def test_segments_of_1202_layers_have_nine_blocks():
    assert segment_length(200) == 9
    net = create_model("cifar_resnet110", device="meta")
    prepare(net, replace(BASE, checkpoint_blocks="auto"))
    assert [stage.every for stage in net.stages] == [segment_length(18)] * 3 == [3, 3, 3]


def test_mixing_takes_neighbours_so_a_micro_batch_has_an_even_number(data):
    cpu = torch.device("cpu")
    mixed = TrainConfig(epochs=1, batch_size=12, accumulate=2, augment=AugmentConfig(mixup=0.2))
    assert len(next(make_loader(data, mixed, cpu).shuffled(0, 1))[0]) == 6
    odd = replace(mixed, accumulate=4)
    with pytest.raises(ConfigError, match="give a multiple of 8, at least 8"):
        make_loader(data, odd, cpu)
    plain = replace(odd, augment=AugmentConfig())
    assert len(next(make_loader(data, plain, cpu).shuffled(0, 1))[0]) == 3
