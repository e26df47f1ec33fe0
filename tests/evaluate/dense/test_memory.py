"""Neighbours, votes and draws of patches, against the same written out."""

import numpy as np
import torch
from torch.nn import functional as F

from milan_pipeline.evaluate.dense import memory as module
from milan_pipeline.evaluate.dense.memory import Memory, drawn_patches


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def memory_of(count: int) -> Memory:
    return Memory(F.normalize(drawn(count, 8), dim=-1), drawn(count, 3, seed=1).softmax(-1))


def test_neighbours_vote_by_the_softmax_of_their_cosines() -> None:
    memory, patches = memory_of(50), drawn(7, 8, seed=2) * 9
    found = memory.shares(patches, neighbours=5, temperature=0.1)
    for patch, shares in zip(patches.numpy(), found.numpy(), strict=True):
        cosine = memory.feature_ME.numpy() @ patch / np.linalg.norm(patch)
        nearest = np.argsort(-cosine)[:5]
        votes = np.exp(cosine[nearest] / 0.1)
        wanted = (votes[:, None] * memory.share_MY.numpy()[nearest]).sum(0) / votes.sum()
        np.testing.assert_allclose(shares, wanted, rtol=1e-4)


def test_a_memory_in_parts_has_the_same_neighbours(monkeypatch) -> None:
    memory, patches = memory_of(50), F.normalize(drawn(7, 8, seed=2), dim=-1)
    whole = memory.nearest(patches, 9)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 8)  # fewer than neighbours
    cosines, places = memory.nearest(patches, 9)
    assert torch.equal(places, whole[1])
    assert torch.allclose(cosines, whole[0])


def test_a_memory_smaller_than_the_neighbours_votes_as_a_whole() -> None:
    memory = memory_of(4)
    found = memory.shares(drawn(3, 8, seed=2), neighbours=30, temperature=1e9)
    assert torch.allclose(found, memory.share_MY.mean(0).expand(3, 3), atol=1e-6)


def test_classes_that_no_patch_holds_are_named() -> None:
    memory = Memory(torch.eye(2), torch.tensor([[0.0, 1, 0, 0], [0, 0.5, 0, 0.5]]))
    assert memory.missing_classes() == [0, 2]


def test_rare_classes_are_drawn_first_and_unlabelled_patches_never() -> None:
    shares = torch.zeros(100, 3)
    shares[:90, 0] = 1
    shares[90:92, 1] = 1  # rare; the last eight have no label
    often = np.zeros(100)
    for seed in range(200):
        taken = drawn_patches(shares, 10, "key", seed)
        assert len(taken) == 10
        assert torch.equal(taken, taken.sort().values)
        often[taken] += 1
    assert (often[92:] == 0).all()
    assert often[90:92].min() > 190
    assert often[:90].max() < 40
    assert torch.equal(drawn_patches(shares, 10, "key", 0), drawn_patches(shares, 10, "key", 0))
    assert not torch.equal(drawn_patches(shares, 10, "key", 0), drawn_patches(shares, 10, "b", 0))
    assert len(drawn_patches(shares, 1000, "key", 0)) == 92
