"""Fitting: how good, how large, how repeatable, and from how little."""

import numpy as np
import pytest
import torch

from milan_pipeline.codecs.fitting import codebooks, fit_codec
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.errors import ConfigError, DataError
from tests.support.fitted import FITTED, TOKEN_WIDTH, fitted, tokens


def cosine(text: str, sample: torch.Tensor) -> float:
    codec = fitted(text)
    decoded = codec.decode(*codec.encode(sample[None]))
    return float(torch.cosine_similarity(decoded, sample[None], dim=-1).mean())


def test_more_bytes_are_nearer_on_tokens_that_were_not_fitted_to() -> None:
    held_out = tokens(500, seed=7)
    for family in ("vector", "transform"):
        found = [cosine(f"{family}:bytes={size}", held_out) for size in (2, 3, 6, 12)]
        assert found == sorted(found)
        assert found[-1] > 0.995
    assert cosine("vector:bytes=3", held_out) > cosine("transform:bytes=3", held_out)


@pytest.mark.parametrize("text", FITTED)
def test_the_same_sample_gives_the_same_codec(text: str) -> None:
    again = fit_codec(parse_codec(text), tokens(600))
    assert again.parameters() == fitted(text).parameters()


@pytest.mark.parametrize("text", FITTED)
@pytest.mark.parametrize(
    "sample",
    [
        tokens(1),
        tokens(3),
        torch.ones(40, TOKEN_WIDTH),
        torch.zeros(4, TOKEN_WIDTH),
        tokens(5).repeat(80, 1),
    ],
    ids=["one", "three", "all alike", "all zero", "five different"],
)
def test_next_to_nothing_to_fit_to(text: str, sample: torch.Tensor) -> None:
    codec = fit_codec(parse_codec(text), sample)
    decoded = codec.decode(*codec.encode(sample[None]))
    assert bool(decoded.isfinite().all())
    known = sample.abs().sum(dim=1) > 0
    if text.startswith("vector"):  # whose centres are the sample itself
        similar = torch.cosine_similarity(decoded[0][known], sample[known], dim=-1)
        assert bool((similar > 0.999).all())


def test_bits_go_where_the_variance_is() -> None:
    random = np.random.default_rng(0)
    sample = torch.from_numpy(random.normal(size=(4000, 8)) * 4.0 ** -np.arange(8)).float()
    sample += torch.tensor([20.0] + [0.0] * 7)  # so that directions are nearly the vectors
    bits = fit_codec(parse_codec("transform:bytes=2"), sample).arrays["bits"]
    # Variances fall by 16, two bits, from component to component; 16 bits in all.
    assert bits.tolist() == [7, 5, 3, 1]


def test_progress_and_refusals() -> None:
    seen: list[int] = []
    codec = fit_codec(parse_codec("vector:bytes=4"), tokens(300), seen.append)
    assert sum(seen) == codebooks(codec.spec) == 4
    with pytest.raises(ConfigError, match="more than int8 takes"):
        fit_codec(parse_codec("vector:bytes=13"), tokens(300))
    for sample in (tokens(0), torch.full((3, TOKEN_WIDTH), torch.nan)):
        with pytest.raises(DataError, match="cannot be fitted"):
            fit_codec(parse_codec("vector:bytes=4"), sample)
