"""One step of the optimizer: lr · ‖g‖/‖W‖ of plain SGD, by hand, and what is said of it."""

from dataclasses import replace

import pytest
import torch

from resnetlab.diagnostics.step import explain, judge
from resnetlab.train.config import TrainConfig
from resnetlab.train.gradients import block_gradients
from resnetlab.train.recipe import Recipe
from tests.diagnostics.nets import context, diagnosed, measured
from tests.made import diagnosis, step_result


def trained(data, **training):
    recipe = Recipe(model="cifar_plain14", training=TrainConfig(**training))
    return diagnosed(data, "cifar_plain14", recipe)


def test_step_of_plain_sgd_is_the_rate_times_the_relative_gradient(data):
    net = trained(data, lr=0.3, momentum=0.0, nesterov=False, weight_decay=0.0)
    gradients = block_gradients(net.net, *context(net, batch_size=8).batch, 0)
    before = {name: value.clone() for name, value in net.net.state_dict().items()}
    found = measured(net, "step", batch_size=8).step
    assert list(found.blocks) == [one.block for one in gradients]
    for one in gradients:
        assert found.blocks[one.block] == pytest.approx(0.3 * one.relative, rel=1e-3)
    assert (found.n, found.optimizer, found.lr, found.assumed) == (8, "sgd", 0.3, True)
    assert all(torch.equal(value, before[name]) for name, value in net.net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.net.parameters())


def test_clipping_bounds_the_step(data):
    whole = measured(trained(data, lr=0.3, momentum=0.0, nesterov=False, weight_decay=0.0), "step", batch_size=8).step
    less = trained(data, lr=0.3, momentum=0.0, nesterov=False, weight_decay=0.0, clip_norm=1e-2)
    clipped = measured(less, "step", batch_size=8).step
    assert clipped.whole < 0.2 * whole.whole


def test_adamw_moves_every_weight_by_its_rate(data):
    """Its first step is lr · sign(g): ‖ΔW‖ = lr √n."""
    net = trained(data, optimizer="adamw", lr=1e-3, weight_decay=0.0)
    weights = [w for w in net.net.stages[1][1].branch.parameters() if w.dim() > 1]
    size = torch.cat([w.detach().flatten() for w in weights])
    found = measured(net, "step", batch_size=8).step
    assert found.blocks["stages.1.1"] == pytest.approx(1e-3 * len(size) ** 0.5 / size.norm().item(), rel=0.02)


def test_finding_names_the_blocks_and_says_what_is_assumed():
    finding = explain(diagnosis())
    assert finding.verdict == "0.5 in the block that moves most"
    assert finding.advice == []
    said = "sgd at a rate of 0.1 moves all weights by 0.5 of their norm, stages.0.0 by 0.5 and stages.0.2 by 0.01."
    assert said in finding.sentences[0]
    net = replace(diagnosis().net, step=replace(step_result(3.0, 0.1), assumed=True))
    finding = explain(replace(diagnosis(), net=net))
    assert "which is assumed" in finding.sentences[0]
    assert len(finding.advice) == 1
    assert judge(step_result(None, 0.1)) == "broken"
    broken = replace(diagnosis().net, step=step_result(None, 0.1))
    assert "no finite number" in explain(replace(diagnosis(), net=broken)).sentences[0]
