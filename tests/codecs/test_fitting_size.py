"""The smallest size that keeps a cosine: found in few tries, on images that are not fitted to."""

import pytest
import torch

from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.codecs.fitting_size import smallest_size
from milan_pipeline.codecs.interface import Attempt, Codec, Encoded
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.errors import ConfigError
from tests.support.fitted import sample


class Losing(Codec):
    """Turns every token, of two components, by an angle."""

    def __init__(self, cosine: float) -> None:
        self.spec = parse_codec("int8")
        sine = (1 - cosine**2) ** 0.5
        self._turn = torch.tensor([[cosine, sine], [-sine, cosine]])

    def try_encode(self, tokens_nND: torch.Tensor) -> Attempt:
        return Attempt(Encoded(tokens_nND, None), torch.ones(len(tokens_nND)).bool())

    def decode(self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None) -> torch.Tensor:
        del scale_nN
        return codes_nNC @ self._turn


@pytest.mark.parametrize("cosine", [0.6, 0.9, 0.99, 0.9995])
def test_it_is_the_smallest_and_found_in_few_tries(cosine: float) -> None:
    tried: list[int] = []

    def cosine_of(size: int) -> float:
        return 1 - 0.5 * 0.93**size

    def fit(size: int, tokens_nND: torch.Tensor) -> Codec:
        assert len(tokens_nND) == 6  # of eight
        tried.append(size)
        return Losing(cosine_of(size))

    found = smallest_size(fit, torch.ones(8, 3, 2), cosine, most=128)
    assert cosine_of(found) >= cosine
    assert found == 2 or cosine_of(found - 1) < cosine
    assert len(tried) <= 5


def test_a_codec_is_fitted_to_a_cosine() -> None:
    codec = fit_codec(parse_codec("cosine:0.999"), sample(80))
    size = codec.spec.token_bytes or 0
    assert (codec.spec.name, codec.spec.cosine, codec.parameters()["cosine"]) == (
        "joint", 0.999, 0.999,
    )  # fmt: skip
    smaller = fit_codec(parse_codec(f"joint:bytes={size - 1}"), sample(80))
    held_out, losses = sample(60, seed=4), []
    for each in (smaller, codec):
        decoded = each.decode(*each.encode(held_out))
        losses.append(1 - float(torch.cosine_similarity(decoded, held_out, dim=-1).mean()))
    assert losses[1] < 0.0015
    assert losses[0] > max(losses[1], 0.0008)


def test_a_cosine_out_of_reach_is_refused() -> None:
    tokens_nND = torch.randn(20, 4, 4, generator=torch.manual_seed(0))
    with pytest.raises(ConfigError, match=r"cosine:0\.9999 is not kept by 4 bytes a token"):
        fit_codec(parse_codec("cosine:0.9999"), tokens_nND)
