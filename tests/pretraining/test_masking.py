"""Semantic-aware sampling: its law, its determinism, and the partition it returns."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.core.keyed_random import keyed_generator
from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.pretraining.masking import (
    MASKINGS,
    draw_mask,
    kept_count,
    sample_kept,
    sample_outside_blocks,
)

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


# ---- other maskings


def masked_grid(masking, grid, kept, key, *, prior=None):
    """Return (rows, columns) bool, True where masked."""
    patches = grid[0] * grid[1]
    prior = np.ones(patches, np.float32) if prior is None else prior
    _, masked_M = draw_mask(masking, prior, kept, grid=grid, seed=0, epoch=0, key=key)
    masked_L = np.zeros(patches, dtype=bool)
    masked_L[masked_M] = True
    return masked_L.reshape(grid)


@settings(deadline=None, derandomize=True)
@given(
    data=st.data(),
    masking=st.sampled_from(MASKINGS),
    grid=st.tuples(st.integers(1, 20), st.integers(2, 20)),
    seed=st.integers(0, 2**63),
    key=st.text(),
)
def test_every_masking_gives_a_sorted_partition_of_the_asked_size(data, masking, grid, seed, key):
    patches = grid[0] * grid[1]
    kept = data.draw(st.integers(1, patches - 1))
    prior = np.linspace(0.1, 1, patches).astype(np.float32)
    words: dict[str, Any] = {"grid": grid, "seed": seed, "epoch": 3, "key": key}
    kept_K, masked_M = draw_mask(masking, prior, kept, **words)
    assert len(kept_K) == kept
    assert kept_K.dtype == masked_M.dtype == np.int64
    assert (np.diff(kept_K) > 0).all()
    assert (np.diff(masked_M) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate([kept_K, masked_M])), np.arange(patches))
    np.testing.assert_array_equal(draw_mask(masking, prior, kept, **words)[0], kept_K)


@pytest.mark.parametrize("masking", MASKINGS)
def test_every_masking_depends_on_seed_epoch_and_key(masking):
    prior = np.ones(196, np.float32)
    words: dict[str, Any] = {"grid": (14, 14), "seed": 1, "epoch": 2, "key": "a"}
    first = draw_mask(masking, prior, 49, **words)[0]
    changes: list[dict[str, Any]] = [{"seed": 2}, {"epoch": 3}, {"key": "b"}]
    for change in changes:
        assert not np.array_equal(first, draw_mask(masking, prior, 49, **(words | change))[0])


def test_semantic_masking_is_by_the_prior_and_the_others_ignore_it():
    prior = np.zeros(16, np.float32)
    prior[[3, 7, 11, 12]] = 1
    expected = np.ones((4, 4), dtype=bool)
    expected.flat[[3, 7, 11, 12]] = False
    np.testing.assert_array_equal(masked_grid("semantic", (4, 4), 4, "a", prior=prior), expected)
    for masking in ("random", "block"):
        np.testing.assert_array_equal(
            masked_grid(masking, (4, 4), 4, "a", prior=prior), masked_grid(masking, (4, 4), 4, "a")
        )


def test_random_masking_masks_each_patch_alike():
    share = np.mean([masked_grid("random", (4, 4), 4, f"{i}") for i in range(DRAWS)], axis=0)
    np.testing.assert_allclose(share, 0.75, atol=4.5 * (0.75 * 0.25 / DRAWS) ** 0.5)


def alike_neighbours(masked_HW):
    """Return the share of neighbouring pairs that are both masked or both not."""
    across, down = (masked_HW == np.roll(masked_HW, 1, axis=axis) for axis in (1, 0))
    return (across[:, 1:].mean() + down[1:].mean()) / 2


def test_blocks_lie_together():
    blocks, loose = (
        np.mean([alike_neighbours(masked_grid(name, (14, 14), 118, f"{i}")) for i in range(200)])
        for name in ("block", "random")
    )
    assert loose == pytest.approx(0.52, abs=0.02)  # 0.6^2 + 0.4^2
    assert blocks > 0.8


def test_a_first_block_that_masks_enough_is_a_rectangle_of_beits_proportions():
    """With 16 patches to mask the first block has 16, an aspect ratio of 0.3 to 1 / 0.3."""
    seen = set()
    for number in range(300):
        masked_HW = masked_grid("block", (14, 14), 180, f"{number}")
        rows, columns = (masked_HW.any(axis=axis).sum() for axis in (1, 0))
        if rows * columns == 16:
            seen.add((int(rows), int(columns)))
    # 2 x 8 would be an aspect ratio of 0.25; rounded sides allow 7 x 2 or 5 x 3, of other areas.
    assert seen == {(4, 4)}


@pytest.mark.parametrize("kept", [1, 2, 195])
def test_block_masking_ends_where_little_is_kept_or_masked(kept):
    kept_K, masked_M = sample_outside_blocks((14, 14), kept, seed=0, epoch=0, key="a")
    assert (len(kept_K), len(masked_M)) == (kept, 196 - kept)


def test_an_unknown_masking_is_refused():
    with pytest.raises(ConfigError, match="--masking 'none' is unknown; choose one of semantic"):
        masked_grid("none", (4, 4), 4, "a")
