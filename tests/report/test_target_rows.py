"""A sample of targets: the same from store and shards, few blocks, decoded, damage refused."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.report.target_rows import read_target_rows
from milan_pipeline.targets.layout import OUTER_SHARD
from tests.support.cli import extract_targets
from tests.support.fitted import write_fitted
from tests.support.stores import make_store


def by_key(rows):
    return {(rows.view[i], rows.source[i], rows.key[i]): i for i in range(len(rows))}


def test_store_and_shards_give_the_same_targets(target_store: Path, target_shards: Path) -> None:
    stored, packed = (read_target_rows(str(at), 1000, 0) for at in (target_store, target_shards))
    assert len(stored) == len(packed) == stored.total == packed.total == 48
    assert (stored.blocks, packed.blocks) == (6, None)
    there, here = by_key(stored), by_key(packed)
    assert there.keys() == here.keys()
    order = [here[name] for name in there]
    assert torch.equal(stored.tokens_nND, packed.tokens_nND[order])
    assert np.array_equal(stored.prior_nL, packed.prior_nL[order])
    assert stored.records.tobytes() == packed.records[order].tobytes()
    assert stored.source_sha256 == [packed.source_sha256[i] for i in order]


@pytest.mark.parametrize("kind", ["target_store", "target_shards"])
def test_a_sample_is_a_function_of_the_seed(kind: str, request: pytest.FixtureRequest) -> None:
    place = str(request.getfixturevalue(kind))
    first, again, other = (read_target_rows(place, 7, seed) for seed in (1, 1, 2))
    assert by_key(first).keys() == by_key(again).keys() != by_key(other).keys()
    assert len(by_key(first)) == 7
    assert torch.equal(first.tokens_nND, again.tokens_nND)


@pytest.mark.parametrize("kind", ["target_store", "target_shards"])
def test_a_sample_may_be_a_single_target(kind: str, request: pytest.FixtureRequest) -> None:
    place = str(request.getfixturevalue(kind))
    rows, whole = (read_target_rows(place, count, 3) for count in (1, 1000))
    ((name, _),) = by_key(rows).items()
    assert torch.equal(rows.tokens_nND[0], whole.tokens_nND[by_key(whole)[name]])


def test_few_blocks_are_read(tmp_path: Path) -> None:
    """A unit has two, of 256 targets and of 2."""
    per_shard = OUTER_SHARD + 2
    made = make_store(tmp_path, images=2 * per_shard, side=1, width=4, per_shard=per_shard)
    rows = read_target_rows(made.store, 1000, 0, blocks=3)
    assert (rows.total, rows.blocks) == (2 * per_shard, 3)
    numbers = (int(key.rpartition("-")[2]) for key in rows.key)
    blocks = Counter((number // per_shard, number % per_shard >= OUTER_SHARD) for number in numbers)
    assert len(blocks) == 3
    assert all(count == (2 if second else OUTER_SHARD) for (_, second), count in blocks.items())


def test_fitted_codecs_are_decoded(tmp_path: Path) -> None:
    codec, block, (_, targets) = write_fitted(tmp_path, "joint:bytes=2")
    rows = read_target_rows(str(targets), 1000, 0)
    where = {key: row for row, key in enumerate(block.key)}
    order = [where[key] for key in rows.key]
    assert torch.equal(rows.tokens_nND, codec.decode(torch.from_numpy(block.codes[order]), None))


def test_a_damaged_block_is_refused(target_store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "targets.zarr"
    shutil.copytree(target_store, copy)
    codes = copy / "view-00" / "images-000000" / "codes" / "c" / "0" / "0" / "0"
    data = bytearray(codes.read_bytes())
    data[100] ^= 1
    codes.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        read_target_rows(str(copy), 1000, 0)


def test_a_store_without_a_finished_unit_is_refused(
    image_shards: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "targets.zarr"
    extract_targets(image_shards, tiny_clip, out, "--precision", "fp32", "--init")
    with pytest.raises(MissingDataError, match="no finished target"):
        read_target_rows(str(out), 10, 0)
