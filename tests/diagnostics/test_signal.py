import pytest
import torch

from resnetlab.diagnostics.signal import ORDERS, RULE, read_signal
from resnetlab.models.zoo import create_model


def read(name: str, **settings):
    net = create_model(name, in_chans=1, num_classes=10, image_size=8, **settings)
    images = torch.randn(16, 1, 8, 8)
    return read_signal(net, images, torch.arange(16) % 10, {"model": name})


def test_fully_connected_net_of_scaled_identities_gives_the_orders_solved_by_hand():
    """Every branch is zero and its shortcut 2·x: the signal grows by 2 a block, the gradient too."""
    net = create_model("mlp_resnet21", in_chans=1, num_classes=3, image_size=4, widths=(8,)).double()
    for stage in net.stages:
        for block in stage:
            block.shortcut, block.activation = Double(), torch.nn.Identity()
            for parameter in block.branch.parameters():
                torch.nn.init.zeros_(parameter)
    found = read_signal(net, torch.rand(4, 1, 4, 4).double(), torch.tensor([0, 1, 2, 0]), {})
    blocks = found.blocks
    assert found.forward == pytest.approx(blocks * 0.30102999566398, abs=1e-10)
    assert found.backward == pytest.approx(blocks * 0.30102999566398, abs=1e-10)
    assert found.verdict == "exploding"


class Double(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def test_verdicts_of_known_nets():
    assert read("cifar_resnet20").verdict == "steady"
    assert read("cifar_plain56").verdict == "exploding"
    assert read("mlp_plain128").verdict == "steady"  # what He's initialisation is made for
    assert read("mlp_resnet128").verdict == "exploding"
    assert read("mlp_resnet128", scale_residual=True).verdict == "steady"
    assert f"+{ORDERS:g}" in RULE


def test_overflow_is_broken_and_a_zeroed_plain_net_is_silent():
    assert read("mlp_resnet1000").verdict == "broken"
    net = create_model("mlp_plain20", in_chans=1, num_classes=10, image_size=8)
    torch.nn.init.zeros_(net.stages[0][0].branch.linear2.weight)
    found = read_signal(net, torch.randn(4, 1, 8, 8), torch.arange(4), {})
    assert (found.verdict, found.forward) == ("silent", None)
