import copy
import gc

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.diagnostics.gradients import block_gradients
from resnetlab.diagnostics.probes import Probe
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.checkpointing import checkpoint_blocks
from resnetlab.models.shortcuts import IdentityShortcut, MatrixShortcut
from resnetlab.models.zoo import create_model


class Linear(nn.Module):
    """A block y = A x + S x without activation, whose every reading can be solved by hand."""

    def __init__(self, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.block = ResidualBlock(nn.Linear(4, 4, bias=False), shortcut, activation=nn.Identity())

    def forward(self, x):
        return self.block(x)


@pytest.mark.parametrize("kind", ["identity", "matrix", "plain"])
def test_linear_block_in_float64_equals_the_hand_solved_one(kind):
    shortcut = {"identity": IdentityShortcut(), "matrix": MatrixShortcut(4, 4), "plain": None}[kind]
    net = Linear(shortcut).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 4, dtype=torch.float64)
    with Probe(net) as probe:
        (net(x) * weights).sum().backward()
    (found,) = probe.readings()
    a = net.block.branch.weight.detach()
    s = {"identity": torch.eye(4).double(), "plain": torch.zeros(4, 4).double()}.get(kind)
    s = net.block.shortcut.linear.weight.detach() if s is None else s
    x = x.detach()
    branch, beside = x @ a.T, x @ s.T
    y = branch + beside
    expected = {
        "input_norm": x.norm(),
        "branch_norm": branch.norm(),
        "ratio": branch.norm() / (x.norm() if kind == "plain" else beside.norm()),
        "cosine": F.cosine_similarity(x, y, dim=1).mean(),
        "gradient_out": weights.norm(),
        "gradient_branch": (weights @ a).norm(),
        "gradient_in": (weights @ (a + s)).norm(),
        "zeros": torch.zeros(()),
        "dead": torch.zeros(()),
    }
    if kind != "plain":
        expected |= {"shortcut_norm": beside.norm(), "gradient_shortcut": (weights @ s).norm()}
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value.item(), abs=1e-10), name
    assert found.responses == [pytest.approx(branch.std(correction=0).item(), abs=1e-10)]
    if kind == "plain":
        assert found.shortcut_norm is None
        assert found.gradient_shortcut is None


@pytest.mark.parametrize(
    "name", ["cifar_resnet14", "cifar_plain14", "cifar_preact_resnet11", "mlp_resnet9", "resnet18"]
)
def test_looking_changes_nothing_to_the_bit(name):
    plain, watched = (create_model(name, in_chans=1, num_classes=3, image_size=16).train() for _ in range(2))
    x, labels = torch.randn(6, 1, 16, 16), torch.arange(6) % 3
    outputs = []
    for net in (plain, watched):
        with Probe(net) if net is watched else torch.enable_grad():
            out = net(x)
            F.cross_entropy(out, labels).backward()
        outputs.append(out)
    assert torch.equal(*outputs)
    for (key, ours), theirs in zip(plain.named_parameters(), watched.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), key
    assert all(torch.equal(value, watched.state_dict()[key]) for key, value in plain.state_dict().items())
    again = copy.deepcopy(watched)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in again.modules())


def test_readings_of_a_net_are_those_of_its_hooks():
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3).eval()
    x = torch.randn(4, 1, 8, 8)
    kept = {}
    block = net.stages[1][0]
    handles = [
        block.register_forward_hook(lambda _, i, o: kept.update(x=i[0], y=o)),
        block.branch.register_forward_hook(lambda _, __, o: kept.update(f=o)),
        block.branch.norm1.register_forward_hook(lambda _, __, o: kept.update(n1=o)),
        block.branch.norm2.register_forward_hook(lambda _, __, o: kept.update(n2=o)),
    ]
    with torch.no_grad(), Probe(net) as probe:
        net(x)
    for handle in handles:
        handle.remove()
    found = {reading.block: reading for reading in probe.readings()}["stages.1.0"]
    assert found.branch_norm == pytest.approx(kept["f"].norm().item(), rel=1e-5)
    assert found.responses == [pytest.approx(kept[n].std(correction=0).item(), rel=1e-5) for n in ("n1", "n2")]
    assert found.zeros == pytest.approx((kept["y"] == 0).float().mean().item(), abs=1e-6)
    assert found.cosine is None  # its shape changes
    assert found.gradient_in is None


def test_dead_channels_are_counted():
    net = create_model("cifar_resnet8", in_chans=1, num_classes=3).eval()
    block = net.stages[0][0]
    with torch.no_grad():
        net.stem.conv.weight[:4] = 0
        block.branch.norm2.weight[:4] = 0
        block.branch.norm2.bias[:4] = -1
        block.branch.norm2.bias[4:] = 9
        with Probe(net) as probe:
            net(torch.randn(4, 1, 8, 8))
    assert probe.readings()[0].dead == pytest.approx(4 / 16)
    assert probe.readings()[0].zeros == pytest.approx(4 / 16, abs=1e-6)


def test_preactivation_gradients_are_split_at_x_itself():
    """y = x + F(p(x)): the identity carries ∂L/∂y as it is, and the rest of ∂L/∂x came through F and p."""
    net = create_model("cifar_preact_resnet20", in_chans=1, num_classes=3).double()
    block = net.stages[0][1]
    x, weights = (torch.randn(4, 16, 8, 8, dtype=torch.float64) for _ in range(2))
    x.requires_grad_(True)
    with Probe(nn.Sequential(block)) as probe:
        (block(x) * weights).sum().backward()
    (found,) = probe.readings()
    assert isinstance(block.shortcut, IdentityShortcut)
    assert found.gradient_shortcut == pytest.approx(weights.norm().item(), abs=1e-10)
    assert found.gradient_branch == pytest.approx((x.grad - weights).norm().item(), abs=1e-10)
    assert found.gradient_in == pytest.approx(x.grad.norm().item(), abs=1e-10)
    activated = block.preactivation(x)
    assert found.zeros == pytest.approx((activated == 0).double().mean().item(), abs=1e-10)
    assert found.zeros > 0.2, "the sum behind the block has no zeros"


def test_checkpointed_net_keeps_no_graph_alive():
    """A watch that held its input with its graph would hold every segment that was computed again."""
    net = checkpoint_blocks(create_model("cifar_resnet20", in_chans=1, num_classes=3), 2)
    with Probe(net) as probe:
        block_gradients(net, *batch())
        gc.collect()
        graphs = [kept for kept in gc.get_objects() if issubclass(type(kept), Tensor) and kept.grad_fn is not None]
    assert probe.readings()
    assert graphs == []


def test_checkpointed_net_gives_the_same_readings():
    plain, saving = (create_model("cifar_resnet20", in_chans=1, num_classes=3) for _ in range(2))
    checkpoint_blocks(saving, 2)
    found = []
    for net in (plain, saving):
        with Probe(net) as probe:
            weights = block_gradients(net.eval(), *batch())
        found.append((weights, probe.readings()))
        assert not net.training
    assert found[0] == found[1]
    assert all(torch.equal(value, saving.state_dict()[key]) for key, value in plain.state_dict().items())


def batch():
    torch.manual_seed(1)
    return torch.randn(6, 1, 8, 8), torch.arange(6) % 3
