"""The prompting decoder against the method spelled out."""

import pytest
import torch
import torch.nn.functional as F

from milan_pipeline.errors import ConfigError
from milan_pipeline.models.decoder import PromptingDecoder
from milan_pipeline.models.student import in_grid_order
from tests.support.students import GRID, perturbed


def spelled_out(decoder, latent_SE, kept_K, masked_M):
    """Compute one sample's prediction, attention head by head, tokens put in order one by one."""
    position_NC = decoder.pos_embed[0]
    seen = [0, *(kept_K + 1).tolist()]
    prompts_SC = F.linear(latent_SE, decoder.embed.weight, decoder.embed.bias) + position_NC[seen]
    x_MC = decoder.mask_token[0] + position_NC[masked_M + 1]
    for block in decoder.blocks:
        normed_MC = block.norm1(x_MC)
        q = block.attn.q(normed_MC)
        k, v = block.attn.kv(torch.cat([normed_MC, prompts_SC])).split(8, dim=-1)
        heads = [slice(0, 4), slice(4, 8)]
        mixed = [(q[:, h] @ k[:, h].T / 4**0.5).softmax(dim=-1) @ v[:, h] for h in heads]
        x_MC = x_MC + block.attn.proj(torch.cat(mixed, dim=-1))
        x_MC = x_MC + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x_MC))))
    tokens = dict(zip(seen, prompts_SC, strict=True))
    tokens |= dict(zip((masked_M + 1).tolist(), x_MC, strict=True))
    ordered_NC = torch.stack([tokens[place] for place in range(len(tokens))])
    return decoder.pred(decoder.norm(ordered_NC))


def test_the_decoder_equals_the_method_spelled_out():
    torch.manual_seed(0)
    decoder = perturbed(PromptingDecoder(16, GRID, 12, width=8, depth=2, heads=2))
    order_BL = torch.rand(2, 24).argsort(dim=1)
    kept_BK, masked_BM = order_BL[:, :6], order_BL[:, 6:]
    latent_BSE = torch.randn(2, 7, 16)
    pred = decoder(latent_BSE, kept_BK, masked_BM, slice(0, 25))
    pred = in_grid_order(pred, kept_BK, masked_BM)
    assert pred.shape == (2, 25, 12)
    samples = zip(latent_BSE, kept_BK, masked_BM, strict=True)
    expected = torch.stack([spelled_out(decoder, *sample) for sample in samples])
    torch.testing.assert_close(pred, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("width", "heads", "reason"),
    [(12, 8, "12 does not divide into 8 heads"), (10, 2, "width of 10 .* multiple of 4")],
)
def test_a_width_that_does_not_fit_is_refused(width, heads, reason):
    with pytest.raises(ConfigError, match=reason):
        PromptingDecoder(16, GRID, 12, width=width, depth=1, heads=heads)
