"""Fitting: how good, how large, how repeatable, and from how little."""

import pytest
import torch

from milan_pipeline.codecs.fitting import fit_codec, fit_steps
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.errors import ConfigError, DataError
from tests.support.fitted import FITTED, TOKEN_WIDTH, fitted, sample, tokens


def cosine(text: str, tokens_nND: torch.Tensor) -> float:
    codec = fitted(text)
    decoded = codec.decode(*codec.encode(tokens_nND))
    return float(torch.cosine_similarity(decoded, tokens_nND, dim=-1).mean())


def test_more_bytes_are_nearer_on_tokens_that_were_not_fitted_to() -> None:
    held_out = sample(50, seed=7)
    found = [cosine(f"joint:bytes={size}", held_out) for size in (2, 3, 6, 12)]
    assert found == sorted(found)
    assert found[-1] > 0.995


@pytest.mark.parametrize("text", FITTED)
def test_the_same_sample_gives_the_same_codec(text: str) -> None:
    again = fit_codec(parse_codec(text), sample(60))
    assert again.parameters() == fitted(text).parameters()


def test_what_cls_tells_of_patches_takes_no_bytes() -> None:
    random = torch.manual_seed(0)
    cls_n1D = torch.randn(200, 1, TOKEN_WIDTH, generator=random)
    noise_nLD = 0.1 * torch.randn(200, 6, TOKEN_WIDTH, generator=random)
    told = torch.cat([cls_n1D, cls_n1D.flip(-1) + noise_nLD], dim=1)
    alone = torch.cat([cls_n1D.roll(1, 0), told[:, 1:]], dim=1)  # CLS of other images
    found = []
    for tokens_nND in (told, alone):
        codec = fit_codec(parse_codec("joint:bytes=4"), tokens_nND[:150])
        decoded = codec.decode(*codec.encode(tokens_nND[150:]))
        found.append(float(torch.cosine_similarity(decoded, tokens_nND[150:], dim=-1).mean()))
    assert 1 - found[0] < (1 - found[1]) / 2


def test_kinds_have_components_of_their_own() -> None:
    """Two kinds that vary along two components each: one byte is enough for either."""
    random = torch.manual_seed(0)
    tokens_nND = torch.zeros(60, 20, TOKEN_WIDTH)
    for kind in range(2):
        own = tokens_nND[:, kind::2, 6 * kind : 6 * kind + 6]
        own[..., 0] = 2
        own[..., 1:3] = torch.randn(60, 10, 2, generator=random)
    codec = fit_codec(parse_codec("joint:bytes=2"), tokens_nND)
    decoded = codec.decode(*codec.encode(tokens_nND))
    assert torch.cosine_similarity(decoded, tokens_nND, dim=-1)[:, 1:].mean() > 0.99


@pytest.mark.parametrize("text", FITTED)
@pytest.mark.parametrize(
    "sample",
    [
        tokens(1)[None],
        tokens(3)[None],
        torch.ones(4, 10, TOKEN_WIDTH),
        torch.zeros(2, 2, TOKEN_WIDTH),
        tokens(5)[None].repeat(80, 1, 1),
    ],
    ids=["one", "three", "all alike", "all zero", "one image"],
)
def test_next_to_nothing_to_fit_to(text: str, sample: torch.Tensor) -> None:
    codec = fit_codec(parse_codec(text), sample)
    decoded = codec.decode(*codec.encode(sample))
    assert bool(decoded.isfinite().all())
    known = sample.abs().sum(dim=-1) > 0
    similar = torch.cosine_similarity(decoded[known], sample[known], dim=-1)
    assert bool((similar > 0.99).all())


def test_progress_and_refusals() -> None:
    seen: list[int] = []
    codec = fit_codec(parse_codec("joint:bytes=4"), sample(30), seen.append)
    assert sum(seen) == fit_steps(codec.spec)
    with pytest.raises(ConfigError, match="more than int8 takes"):
        fit_codec(parse_codec("joint:bytes=13"), sample(30))
    for broken in (sample(0), torch.full((1, 3, TOKEN_WIDTH), torch.nan)):
        with pytest.raises(DataError, match="cannot be fitted"):
            fit_codec(parse_codec("joint:bytes=4"), broken)
