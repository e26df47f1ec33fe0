"""The order of samples is the recorded one: it must not change while a run goes on.

Each case is a small data set. What is hashed is all that a batch is made of: key, shard, epoch,
digest and the bytes of image and target.
"""

import functools
import hashlib
from typing import NamedTuple

import pytest
import torch

from milan_pipeline.cluster.world import World
from milan_pipeline.data.order import OrderConfig
from milan_pipeline.data.pair_table import OnMissing
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.data.stream import batches, step_clock
from milan_pipeline.shards.random_access import IMAGE_MEMBER
from milan_pipeline.targets.shard_records import TARGET_EXTENSION
from tests.support.pairs import joined_pairs, write_images, write_targets

EPOCHS = 4
SHARDS = {
    f"s{number}": tuple(f"k{number}{at:02d}" for at in range(9 + number)) for number in (0, 1, 2)
}
FEWER = {"s0": SHARDS["s0"][1:], "s1": SHARDS["s1"], "s2": SHARDS["s2"][::-1]}
SKIPPED = {"s0": ("k003",), "s1": ("k105", "k109")}
UNSKIPPED = {s: tuple(k for k in keys if k not in SKIPPED.get(s, ())) for s, keys in SHARDS.items()}

CASES = {
    "whole": (SHARDS, SHARDS, {}, 1, 4, "cfec1f46399d9c2b"),
    "one lane": (SHARDS, SHARDS, {}, 1, 1, "8f15349fe624d608"),
    "two views": (SHARDS, SHARDS, {}, 2, 4, "1ddd4c24a17e0a9c"),
    "extraction skipped keys": (SHARDS, UNSKIPPED, SKIPPED, 2, 4, "ca30cab07e9cc488"),
    "a target is missing": (SHARDS, FEWER, {}, 2, 4, "3d89d2473a18a0ad"),
    "an image is missing": (FEWER, SHARDS, {}, 2, 4, "9cb9022432e72422"),
    "a target shard is missing": (
        SHARDS,
        {s: SHARDS[s] for s in ("s2", "s0")},
        {},
        2,
        4,
        "4e319e36c3d295f1",
    ),
    "an image shard is missing": (
        {s: SHARDS[s] for s in ("s2", "s1")},
        SHARDS,
        {},
        2,
        4,
        "a3adb6e6cd245240",
    ),
}


class Seen(NamedTuple):
    digest_B8: torch.Tensor
    keys: list[str]


def seen(samples):
    for sample in samples:
        named = f"{sample['__key__']} {sample['__url__'].rpartition('/')[2]} {sample['epoch']}"
        text = f"{named} {sample['digest']} ".encode()
        data = text + sample[IMAGE_MEMBER] + sample[TARGET_EXTENSION]
        digest = hashlib.sha256(data).digest()[:8]
        yield Seen(torch.frombuffer(bytearray(digest), dtype=torch.uint8), [named])


def hashes(table, order, steps, size):
    """Return a hash of each global batch, whose parts go to `size` processes."""
    parts = [
        batches(table, order, seen, steps=steps, workers=0, world=World(rank, size))
        for rank in range(size)
    ]
    return [
        hashlib.sha256(b"".join(part.digest_B8.numpy().tobytes() for part in batch)).hexdigest()
        for batch in zip(*parts, strict=True)
    ]


@pytest.mark.parametrize("case", CASES)
def test_batches_are_the_recorded_ones(case, tmp_path):
    image_keys, target_keys, skipped, views, lanes, expected = CASES[case]
    images = write_images(tmp_path / "images", image_keys)
    targets = write_targets(tmp_path / "targets", images, target_keys, skipped=skipped, views=views)
    on_missing: OnMissing = "skip" if case.endswith("is missing") else "error"
    table = PairSamples(joined_pairs(images, targets, views=views, on_missing=on_missing))
    order = OrderConfig(seed=3, batch=4, lanes=lanes, block=3)
    total = step_clock(table, order).total(EPOCHS)
    found = functools.partial(hashes, table, order)
    whole = found(range(total), 1)
    assert hashlib.sha256("".join(whole).encode()).hexdigest()[:16] == expected
    if lanes > 1:  # elastic: other processes go on in mid-epoch
        assert found(range(3), 2) + found(range(3, total), lanes) == whole
