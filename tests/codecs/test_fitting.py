"""Fitting: how good, how large, how repeatable, and from how little."""

import pytest
import torch

from milan_pipeline.codecs import fitting
from milan_pipeline.codecs.fitting import fit_codec, fit_steps
from milan_pipeline.codecs.fitting_tokens import fit_token_layer
from milan_pipeline.codecs.record_arrays import typed
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.codecs.token_layer import decode_tokens, encode_tokens, token_layer
from milan_pipeline.errors import ConfigError, DataError
from tests.support.fitted import FITTED, TOKEN_WIDTH, TOKENS, fitted, sample, tokens


def cosine(text: str, tokens_nND: torch.Tensor) -> float:
    codec = fitted(text)
    decoded = codec.decode(*codec.encode(tokens_nND))
    return float(torch.cosine_similarity(decoded, tokens_nND, dim=-1).mean())


def test_more_bytes_are_nearer_on_tokens_that_were_not_fitted_to() -> None:
    held_out = sample(50, seed=7)
    found = [cosine(f"joint:bytes={size}", held_out) for size in (1, 2, 4, 6, 12)]
    assert found == sorted(found)
    assert found[-1] > 0.995


@pytest.mark.parametrize("text", FITTED)
def test_the_same_sample_gives_the_same_codec(text: str) -> None:
    again = fit_codec(parse_codec(text), sample(60))
    assert again.parameters() == fitted(text).parameters()


def error_of_token_layer(patches_nLD: torch.Tensor, cls_nD: torch.Tensor, mean_bytes: int) -> float:
    """Fit the token layer to all images but 50, and return its mean squared error on these."""
    fitted = fit_token_layer(
        patches_nLD[50:].numpy(), cls_nD[50:].numpy(), mean_bytes, lambda _: None
    )
    layer, patches = token_layer(typed(fitted), torch.device("cpu")), patches_nLD.shape[1]
    codes_nB = encode_tokens(patches_nLD[:50], cls_nD[:50], layer, patches * (1 + mean_bytes))
    assert codes_nB.shape == (50, patches * (1 + mean_bytes))
    decoded_nLD = decode_tokens(codes_nB, cls_nD[:50], layer, patches)
    return float((decoded_nLD - patches_nLD[:50]).square().sum(dim=-1).mean())


def test_what_cls_tells_of_patches_takes_no_bytes() -> None:
    random = torch.manual_seed(0)
    cls_nD = torch.randn(200, TOKEN_WIDTH, generator=random)
    noise_nLD = 0.1 * torch.randn(200, 6, TOKEN_WIDTH, generator=random)
    patches_nLD = cls_nD.flip(-1)[:, None] + noise_nLD
    told = error_of_token_layer(patches_nLD, cls_nD, 3)
    alone = error_of_token_layer(patches_nLD, cls_nD.roll(1, 0), 3)  # CLS of other images
    assert told < alone / 2


def test_kinds_have_components_of_their_own() -> None:
    """Two kinds that vary along two components each: one byte is enough for either."""
    random = torch.manual_seed(0)
    patches_nLD = torch.zeros(110, 20, TOKEN_WIDTH)
    for kind in range(2):
        own = patches_nLD[:, kind::2, 6 * kind : 6 * kind + 6]
        own[..., 0] = 2
        own[..., 1:3] = torch.randn(110, 10, 2, generator=random)
    error = error_of_token_layer(patches_nLD, torch.zeros(110, TOKEN_WIDTH), 1)
    assert error < 0.02 * float(patches_nLD.square().sum(dim=-1).mean())


def test_patches_that_differ_more_get_more_bytes() -> None:
    """Of every image, one patch in ten has all the variance, as the registers of some teachers."""
    random = torch.manual_seed(0)
    patches_nLD = 0.01 * torch.randn(200, 20, TOKEN_WIDTH, generator=random)
    patches_nLD[:, :2] += 3 * torch.randn(200, 2, TOKEN_WIDTH, generator=random)
    error = error_of_token_layer(patches_nLD, torch.zeros(200, TOKEN_WIDTH), 2)
    # 6 bits a component: with as many bytes for all, two bytes would leave a fourth or more.
    assert error < 0.16 * float(patches_nLD.square().sum(dim=-1).mean())


def test_neighbours_that_are_alike_take_the_bytes_of_one() -> None:
    random = torch.manual_seed(0)
    image_n1D = torch.randn(200, 1, TOKEN_WIDTH, generator=random)
    alike = image_n1D + 0.05 * torch.randn(200, 17, TOKEN_WIDTH, generator=random)
    codec = fit_codec(parse_codec("joint:bytes=1"), alike[:150])
    decoded = codec.decode(*codec.encode(alike[150:]))
    assert not codec.has_token_layer
    assert torch.cosine_similarity(decoded, alike[150:], dim=-1).mean() > 0.98


@pytest.mark.parametrize("promising", [True, False])
def test_the_token_layer_is_fitted_to_few_images_first(
    monkeypatch: pytest.MonkeyPatch, promising: bool
) -> None:
    """The result is the same; where the trial is lost, the long fit does not happen."""
    if promising:
        spec, tokens_nND = parse_codec("joint:bytes=4"), sample(60)
    else:
        image_n1D = torch.randn(60, 1, TOKEN_WIDTH, generator=torch.manual_seed(0))
        spec, tokens_nND = parse_codec("joint:bytes=2"), image_n1D.expand(60, 10, TOKEN_WIDTH)
    whole = fit_codec(spec, tokens_nND)
    assert whole.has_token_layer == promising
    fitted_images = []

    def spy(patches_nLD, *rest):
        fitted_images.append(len(patches_nLD))
        return fit_token_layer(patches_nLD, *rest)

    monkeypatch.setattr(fitting, "fit_token_layer", spy)
    monkeypatch.setattr(fitting, "TRIAL_PATCHES", 30 * TOKENS)
    steps: list[int] = []
    assert fit_codec(spec, tokens_nND, steps.append).parameters() == whole.parameters()
    assert fitted_images == ([30, 52] if promising else [30])
    assert sum(steps) == fit_steps(spec)


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
