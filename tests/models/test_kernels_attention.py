"""Every way to attention computes the same."""

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block

from milan_pipeline.models.kernels import attention, spell_out_attention

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("autocast", [False, True])
def test_attention_and_its_gradients_equal_the_formula_in_float64(dtype, autocast):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8))
    given = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    ours = [tensor.clone().requires_grad_() for tensor in given]
    exact = [tensor.double().requires_grad_() for tensor in given]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast and dtype == torch.bfloat16):
        found = attention(*ours)
    assert found.dtype == dtype
    expected = F.softmax(exact[0] @ exact[1].mT / 8**0.5, dim=-1) @ exact[2]
    torch.testing.assert_close(found.double(), expected, atol=TOLERANCE[dtype], rtol=0)
    found.float().square().sum().backward()
    expected.square().sum().backward()
    for left, right in zip(ours, exact, strict=True):
        assert left.grad is not None
        assert right.grad is not None
        scale = float(right.grad.abs().max())
        apart = float((left.grad.double() - right.grad).abs().max())
        assert apart <= TOLERANCE[dtype] * scale * 2


def test_a_timm_block_computes_the_same_when_spelled_out():
    torch.manual_seed(0)
    block = Block(16, 2)
    tokens = torch.randn(2, 5, 16)
    expected = block(tokens)
    assert block.attn.fused_attn
    spell_out_attention(block)
    assert not block.attn.fused_attn
    torch.testing.assert_close(block(tokens), expected)
