"""Semantic-aware sampling: its law, its determinism, and the partition it returns."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.keyed_random import keyed_generator
from milan_pipeline.masking import kept_count, sample_kept

DRAWS = 4000


def draw(prior, kept, draws=DRAWS):
    """Return (draws, kept) indices from as many keys."""
    keys = (f"key-{i}" for i in range(draws))
    return np.stack([sample_kept(prior, kept, seed=0, epoch=0, key=key)[0] for key in keys])


@pytest.mark.parametrize(
    ("patches", "ratio", "kept"),
    [(196, 0.75, 49), (196, 0.5, 98), (16, 0.75, 4), (196, 0.9, 19), (2, 0.5, 1)],
)
def test_kept_count_is_the_official_truncation(patches, ratio, kept):
    assert kept_count(patches, ratio) == kept


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, 0.99, 1e-20, float("nan")])
def test_a_ratio_that_keeps_or_masks_nothing_is_refused(ratio):
    with pytest.raises(ConfigError, match=r"--mask-ratio .* of 16 patches"):
        kept_count(16, ratio)


def test_a_single_draw_has_the_prior_as_its_distribution():
    prior = np.array([1, 2, 3, 4, 10, 0.5], np.float32)
    observed = np.bincount(draw(prior, 1)[:, 0], minlength=len(prior))
    expected = DRAWS * prior / prior.sum()
    chi_square = ((observed - expected) ** 2 / expected).sum()
    assert chi_square < 20.5  # 99.9th percentile of chi-square with 5 degrees of freedom


def test_pairs_of_draws_follow_the_law_of_sequential_sampling():
    prior = np.array([1, 2, 3, 4, 8], np.float32)
    p = (prior / prior.sum()).astype(np.float64)
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    # i then j, or j then i: the second draw renormalises what is left.
    law = np.array([p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]) for i, j in pairs])
    drawn = draw(prior, 2)
    observed = np.array([(drawn == pair).all(axis=1).sum() for pair in pairs])
    assert ((observed - DRAWS * law) ** 2 / (DRAWS * law)).sum() < 27.9  # 9 degrees of freedom


def test_inclusion_frequencies_agree_with_torch_multinomial():
    prior = np.linspace(0.1, 3, 16).astype(np.float32)
    ours = np.bincount(draw(prior, 4).ravel(), minlength=16) / DRAWS
    generator = torch.Generator().manual_seed(0)
    rows = torch.from_numpy(prior).expand(DRAWS, -1)
    theirs = torch.multinomial(rows, 4, generator=generator).flatten().bincount() / DRAWS
    # Two frequencies of 4,000 draws each: 0.5 * sqrt(2 / 4000) is one standard deviation at most.
    np.testing.assert_allclose(ours, theirs.numpy(), atol=4 * 0.5 * (2 / DRAWS) ** 0.5)


@settings(deadline=None, derandomize=True)
@given(data=st.data(), patches=st.integers(2, 300), seed=st.integers(0, 2**63), key=st.text())
def test_kept_and_masked_are_a_sorted_partition(data, patches, seed, key):
    kept = data.draw(st.integers(1, patches - 1))
    prior = keyed_generator("test", seed, key).random(patches).astype(np.float32)
    prior[data.draw(st.integers(0, patches - 1))] = 0
    kept_K, masked_M = sample_kept(prior, kept, seed=seed, epoch=3, key=key)
    assert len(kept_K) == kept
    assert kept_K.dtype == masked_M.dtype == np.int64
    assert (np.diff(kept_K) > 0).all()
    assert (np.diff(masked_M) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate([kept_K, masked_M])), np.arange(patches))


def test_a_draw_depends_on_seed_epoch_and_key_and_on_nothing_else():
    prior = np.ones(196, np.float32)
    arguments: dict[str, Any] = {"seed": 1, "epoch": 2, "key": "a"}
    first = sample_kept(prior, 49, **arguments)
    np.random.default_rng().random(5)
    again = sample_kept(prior, 49, **arguments)
    np.testing.assert_array_equal(first[0], again[0])
    changes: list[dict[str, Any]] = [{"seed": 2}, {"epoch": 3}, {"key": "b"}]
    for change in changes:
        other = sample_kept(prior, 49, **(arguments | change))
        assert not np.array_equal(first[0], other[0])


def test_a_draw_is_the_same_in_every_version():
    kept_K, _ = sample_kept(np.ones(16, np.float32), 4, seed=0, epoch=0, key="a")
    assert kept_K.tolist() == [3, 4, 11, 13]


def test_patches_without_prior_are_kept_last():
    prior = np.zeros(16, np.float32)
    prior[[3, 7, 11]] = 1e-30
    kept_K, _ = sample_kept(prior, 3, seed=0, epoch=0, key="a")
    assert kept_K.tolist() == [3, 7, 11]
    sample_kept(np.zeros(16, np.float32), 3, seed=0, epoch=0, key="a")


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_an_impossible_prior_is_refused_with_its_key(value):
    prior = np.ones(16, np.float32)
    prior[5] = value
    with pytest.raises(DataError, match="'shelf/cat'"):
        sample_kept(prior, 4, seed=0, epoch=0, key="shelf/cat")


def test_keyed_generators_tell_apart_what_only_looks_alike():
    alike = [("a", "b"), ("ab",), ("a,b",), ("a", "b", ""), ('a","b',), (1, 2), ("1", "2"), (12,)]
    firsts = {float(keyed_generator(*parts).random()) for parts in alike}
    assert len(firsts) == len(alike)
