"""Parts of a batch joined: the same numbers, in page-locked memory where a GPU copies from it."""

from typing import NamedTuple

import torch

from milan_pipeline.data.batching import join, stack
from tests.support.fake_gpu import PinnedAsked


class Numbers(NamedTuple):
    """A batch of one tensor."""

    values: torch.Tensor
    keys: list[str]


def parts(*sizes: int) -> list[Numbers]:
    return [
        stack([Numbers(torch.full((3,), size), [f"{size}-{row}"]) for row in range(size)])
        for size in sizes
    ]


def test_parts_are_joined_in_order() -> None:
    joined = join(parts(1, 2))
    assert joined.values.tolist() == [[1] * 3, [2] * 3, [2] * 3]
    assert joined.keys == ["1-0", "2-0", "2-1"]
    (alone,) = parts(2)
    assert join([alone]) is alone


def test_for_a_gpu_every_tensor_is_joined_in_page_locked_memory() -> None:
    for sizes in ((2, 1), (4,)):  # a single part, too
        expected = join(parts(*sizes))
        with PinnedAsked() as asked:
            joined = join(parts(*sizes), pinned=True)
        assert asked.bytes == expected.values.nbytes
        assert torch.equal(joined.values, expected.values)
        assert joined.keys == expected.keys
