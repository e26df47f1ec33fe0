"""Codecs on a GPU: their tables go there once, and encoding and decoding a batch copies nothing."""

import pytest
import torch

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.interface import Codec, encode_prior
from tests.support.fake_gpu import GPU, fake_gpu
from tests.support.fitted import FITTED, TOKEN_WIDTH, TOKENS, fitted

UNFITTED = ("float16", "bfloat16", "int8", "rotation:bits=3")


def codec_called(name: str) -> Codec:
    return make_codec(name) if name in UNFITTED else fitted(name)


@pytest.mark.parametrize("name", [*UNFITTED, *FITTED])
def test_a_batch_is_encoded_and_decoded_without_a_copy(name: str) -> None:
    codec = codec_called(name)
    with fake_gpu() as copies:
        width = 2 * TOKEN_WIDTH if name.startswith("rotation") else TOKEN_WIDTH  # divisible by 8
        tokens = torch.zeros(4, TOKENS, width, device=GPU)
        codec.decode(*codec.try_encode(tokens).encoded)  # the tables go to the GPU
        copies.made.clear()
        encoded, fits = codec.try_encode(tokens)
        decoded = codec.decode(*encoded)
        assert copies.made == []
        assert (decoded.shape, decoded.dtype) == (tokens.shape, torch.float32)
        assert encoded[0].device == fits.device == decoded.device == GPU


def test_priors_are_encoded_without_a_copy() -> None:
    with fake_gpu() as copies:
        prior = torch.rand(4, 8, device=GPU)
        assert encode_prior(prior).device == GPU
        assert copies.made == []
