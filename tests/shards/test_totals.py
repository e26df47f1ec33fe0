"""Totals are those of the shards that a manifest lists; no shard is kept."""

import dataclasses
from pathlib import Path

import pytest

from milan_pipeline.errors import DataError
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.shards.totals import ShardTotals, read_totals


def a_shard(number: int, samples: int, size: int) -> Shard:
    details = {"view": number % 2, "source": f"s{number}", "source_sha256": "", "skipped": []}
    return Shard(
        name=f"{number}.tar",
        samples=samples,
        bytes=size,
        sha256="5",
        index_sha256="6",
        details=details,
    )


def test_totals_of_shards(tmp_path: Path) -> None:
    shards = a_shard(0, 5, 70), a_shard(1, 3, 90), a_shard(2, 8, 20)
    made = Manifest(kind="targets", folder=str(tmp_path), shards=shards, complete=False)
    made.save()
    names: list[str] = []
    head, totals = read_totals(made.folder, kind="targets", also=lambda row: names.append(row.name))
    assert totals == ShardTotals(shards=3, samples=16, bytes=180, fewest=3, most=8, largest=90)
    assert names == ["0.tar", "1.tar", "2.tar"]
    assert (head.shards, head.complete, head.sha256) == ((), False, made.sha256)


def test_totals_of_no_shards(tmp_path: Path) -> None:
    Manifest(kind="images", folder=str(tmp_path), shards=()).save()
    assert read_totals(str(tmp_path), kind="images")[1] == ShardTotals()


def test_a_shard_without_what_it_must_have_is_refused(tmp_path: Path) -> None:
    bare = dataclasses.replace(a_shard(0, 1, 1), details={})
    Manifest(kind="targets", folder=str(tmp_path), shards=(bare,)).save()
    with pytest.raises(DataError, match="no manifest of shards"):
        read_totals(str(tmp_path), kind="targets")
