"""The smallest size that keeps a cosine: found in few tries, on images that are not fitted to."""

import math

import pytest
import torch

from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.codecs.fitting_size import smallest_size
from milan_pipeline.codecs.interface import Attempt, Codec
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.errors import ConfigError
from tests.support.fitted import TOKEN_WIDTH, TOKENS, sample


class Losing(Codec):
    """Is only known by the loss that it is made with."""

    def __init__(self, loss: float) -> None:
        self.spec, self.loss = parse_codec("int8"), loss

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        raise NotImplementedError

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("cosine", [0.6, 0.9, 0.99, 0.9995])
def test_it_is_about_the_smallest_and_found_in_few_tries(cosine: float) -> None:
    tried: list[int] = []

    def loss_of_size(size: int) -> float:
        return 0.5 / math.exp(1.7 * math.log(1 + size / 40))

    def fit(size: int) -> Losing | None:
        tried.append(size)
        return None if size < 10 else Losing(loss_of_size(size))

    found = smallest_size(fit, lambda codec: codec.loss, cosine, most=8320)
    assert found is not None
    size, codec = found
    assert codec.loss == loss_of_size(size) <= 1 - cosine
    assert size == 10 or loss_of_size(int(0.98 * size) - 1) > 1 - cosine
    assert len(tried) <= 8
    assert smallest_size(fit, lambda codec: codec.loss, 0.999999, most=8320) is None


def test_a_codec_is_fitted_to_a_cosine() -> None:
    codec = fit_codec(parse_codec("cosine:0.99"), sample(80))
    size = codec.spec.code_shape(TOKENS, TOKEN_WIDTH)[1]
    assert (codec.spec.name, codec.spec.cosine, codec.parameters()["cosine"]) == (
        "joint", 0.99, 0.99,
    )  # fmt: skip
    smaller = fit_codec(parse_codec(f"joint:bytes={0.7 * size / TOKENS}"), sample(80))
    held_out, losses = sample(60, seed=4), []
    for each in (smaller, codec):
        decoded = each.decode(*each.encode(held_out))
        losses.append(1 - float(torch.cosine_similarity(decoded, held_out, dim=-1).mean()))
    assert losses[1] < 0.015
    assert losses[0] > max(losses[1], 0.01)


def test_a_cosine_out_of_reach_is_refused() -> None:
    tokens_nND = torch.randn(20, 4, 4, generator=torch.manual_seed(0))
    with pytest.raises(ConfigError, match=r"cosine:0\.9999 is not kept by the bytes that int8"):
        fit_codec(parse_codec("cosine:0.9999"), tokens_nND)
