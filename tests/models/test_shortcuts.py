import pytest
import torch
from torch.testing import assert_close

from resnetlab.core.errors import ConfigError
from resnetlab.models.shortcuts import (
    IdentityShortcut,
    MatrixShortcut,
    ProjectionShortcut,
    ZeroPadShortcut,
    make_shortcut,
)

FRONT_ZEROS = {"append": 0, "center": 2}


@pytest.mark.parametrize("pad", ["append", "center"])
@pytest.mark.parametrize("side", [7, 8])
def test_zero_pad_keeps_every_second_pixel_and_adds_zero_channels(pad, side):
    x = torch.randn(2, 3, side, side)
    y = ZeroPadShortcut(3, 7, stride=2, pad=pad)(x)
    front = FRONT_ZEROS[pad]
    assert y.shape == (2, 7, 4, 4)
    assert torch.equal(y[:, front : front + 3], x[:, :, ::2, ::2])
    zeros = torch.cat([y[:, :front], y[:, front + 3 :]], dim=1)
    assert zeros.shape[1] == 4
    assert not zeros.any()


def test_zero_pad_of_an_odd_number_puts_the_odd_channel_behind():
    y = ZeroPadShortcut(2, 5, pad="center")(torch.ones(1, 2, 1, 1))
    assert y.flatten().tolist() == [0, 1, 1, 0, 0]


def test_zero_pad_of_vectors_extends_them_with_zeros():
    x = torch.randn(3, 128)
    y = ZeroPadShortcut(128, 256)(x)
    assert y.shape == (3, 256)
    assert torch.equal(y[:, :128], x)
    assert not y[:, 128:].any()


def test_zero_pad_narrowing_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"cannot narrow 8 channels to 4.*projection"):
        ZeroPadShortcut(8, 4)


def test_zero_pad_has_no_parameters():
    assert list(ZeroPadShortcut(16, 32, 2).parameters()) == []


def test_projection_is_a_strided_product_with_w_s_then_batch_norm():
    shortcut = ProjectionShortcut(3, 5, stride=2).eval()
    x = torch.randn(2, 3, 6, 6)
    by_hand = torch.einsum("oc,nchw->nohw", shortcut.conv.weight[:, :, 0, 0], x[:, :, ::2, ::2])
    # In eval mode a fresh BN divides by √(1 + eps).
    assert_close(shortcut(x), by_hand / (1 + shortcut.norm.eps) ** 0.5)
    assert shortcut.conv.bias is None


def test_matrix_is_w_s_of_n2_rows_and_n_columns_without_bias():
    shortcut = MatrixShortcut(128, 256)
    x = torch.randn(4, 128)
    assert shortcut.linear.weight.shape == (256, 128)
    assert shortcut.linear.bias is None
    assert_close(shortcut(x), x @ shortcut.linear.weight.T)


@pytest.mark.parametrize(
    ("option", "in_channels", "out_channels", "stride", "kind"),
    [
        ("A", 16, 16, 1, IdentityShortcut),
        ("A", 16, 32, 2, ZeroPadShortcut),
        ("A", 16, 16, 2, ZeroPadShortcut),
        ("A", 64, 256, 1, ZeroPadShortcut),
        ("B", 16, 16, 1, IdentityShortcut),
        ("B", 16, 32, 2, ProjectionShortcut),
        ("B", 16, 16, 2, ProjectionShortcut),
        ("C", 16, 16, 1, ProjectionShortcut),
        ("C", 16, 32, 2, ProjectionShortcut),
    ],
)
def test_make_shortcut_follows_the_options_of_the_paper(option, in_channels, out_channels, stride, kind):
    assert type(make_shortcut(option, in_channels, out_channels, stride)) is kind


@pytest.mark.parametrize(
    ("option", "out", "kind"),
    [
        ("A", 64, IdentityShortcut),
        ("A", 128, ZeroPadShortcut),
        ("B", 64, IdentityShortcut),
        ("B", 128, MatrixShortcut),
        ("C", 64, MatrixShortcut),
    ],
)
def test_make_shortcut_of_vectors_uses_matrices(option, out, kind):
    assert type(make_shortcut(option, 64, out, form="fc")) is kind


def test_make_shortcut_none_is_the_plain_twin():
    assert make_shortcut(None, 16, 32, 2) is None


@pytest.mark.parametrize("option", ["D", "a", ""])
def test_make_shortcut_unknown_option_names_the_known_ones(option):
    with pytest.raises(ConfigError, match="shortcut"):
        make_shortcut(option, 16, 16)


@pytest.mark.parametrize("option", ["A", "B"])
def test_identity_where_nothing_changes_returns_the_very_input(option):
    x = torch.randn(2, 4, 3, 3)
    assert make_shortcut(option, 4, 4)(x) is x
