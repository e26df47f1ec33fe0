"""Fused attention gives what torch's module gives, in every form of it, and its weights too."""

import pytest
import torch
from torch import nn

from milan_pipeline.teacher.prior import watched
from milan_pipeline.teacher.tower_open_clip import FusedAttention


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kdim", [None, 12])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_other_keys(kdim: int | None, batch_first: bool, first: bool) -> None:
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(8, 2, kdim=kdim, vdim=kdim, batch_first=batch_first).eval()
    nn.init.normal_(plain.in_proj_bias)
    query, key = torch.randn(3, 5, 8), torch.randn(3, 7, kdim or 8)
    if not batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    expected, weights_BNM = plain(query, key, key)
    fused, seen = FusedAttention(plain), list[torch.Tensor]()
    with watched(fused, seen.append, first=first):
        found, _ = fused(query, key, key, need_weights=False)
    assert_near(found, expected)
    assert_near(seen[0], weights_BNM[:, : 1 if first else None])


@pytest.mark.parametrize("batch_first", [True, False])
def test_its_own_tokens(batch_first: bool) -> None:
    torch.manual_seed(0)
    plain = nn.MultiheadAttention(8, 2, batch_first=batch_first).eval()
    nn.init.normal_(plain.in_proj_bias)
    x = torch.randn(3, 5, 8)
    expected, weights_BNN = plain(x, x, x)
    fused, seen = FusedAttention(plain), list[torch.Tensor]()
    with watched(fused, seen.append, first=False):
        found, _ = fused(x, x, x, need_weights=False, attn_mask=None)
    assert_near(found, expected)
    assert_near(seen[0], weights_BNN)


@pytest.mark.parametrize("kdim", [None, 12])
def test_a_key_alone(kdim: int | None) -> None:
    plain = nn.MultiheadAttention(8, 2, kdim=kdim, vdim=kdim, batch_first=True).eval()
    query, key = torch.randn(3, 1, 8), torch.randn(3, 4, kdim or 8)
    alone = FusedAttention(plain).alone(key)
    for number in range(4):
        only = key[:, number : number + 1]
        assert_near(alone[:, number], plain(query, only, only)[0][:, 0])


@pytest.mark.parametrize("kdim", [None, 12])
def test_weights_keep_their_names(kdim: int | None) -> None:
    plain = nn.MultiheadAttention(8, 2, kdim=kdim, vdim=kdim)
    fused = FusedAttention(plain)
    assert fused.state_dict().keys() == plain.state_dict().keys()
    for name, weight in plain.named_parameters():
        assert fused.get_parameter(name) is weight
