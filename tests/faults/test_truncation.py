"""A shard that ends early is named by whoever reads it, unless only the tar's padding is gone."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webdataset

from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import load_manifest
from tests.faults.campaign import COUNTS, attempt, broken, compare, scaled
from tests.faults.consumers import extracted_from, indexed, listed, trained_on

CUTS = scaled(400, 40)
LOCAL = ("__url__", "__local_path__")


def cuts(tar: Path) -> Iterator[int]:
    """Cut a tar at evenly spaced places, one after the other; yield where."""
    good = tar.read_bytes()
    for number in range(CUTS):
        end = len(good) * number // CUTS
        with broken(tar, good[:end]):
            yield end


def cut_and_read(kind, tar, consume):
    """Have a consumer of ours read each cut tar."""
    expected = consume()
    for end in cuts(tar):
        attempt(kind, f"{tar.name} cut at byte {end}", consume, names=[tar.name], expected=expected)
    COUNTS[kind].require_none_failed()


def first(folder: Path, kind: str) -> Path:
    return folder / load_manifest(str(folder), kind=kind).shards[0].name


@pytest.mark.parametrize("kind", ["images", "targets"])
def test_a_cut_shard_is_not_the_listed_one(world, kind) -> None:
    """Not one cut passes a reading from end to end, not even of padding."""
    folder = getattr(world, kind)
    name = f"cut: {kind[:-1]} shard, read whole"
    cut_and_read(name, first(folder, kind), lambda: listed(folder, kind))
    assert COUNTS[name].detected == CUTS


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("kind", ["images", "targets"])
def test_what_the_stock_reader_makes_of_the_same_cuts(world, kind) -> None:
    """For comparison: it takes what ends between two members for a whole tar."""
    tar, name = first(getattr(world, kind), kind), f"cut: {kind[:-1]} shard, stock WebDataset"

    def read() -> list[dict[str, Any]]:
        dataset = webdataset.WebDataset(str(tar), shardshuffle=False)
        return [{k: v for k, v in row.items() if k not in LOCAL} for row in dataset]

    expected = read()
    for _ in cuts(tar):
        compare(name, read, expected=expected)
    gc.collect()  # here, where its warnings of files that it left open are passed over
    assert COUNTS[name].detected < CUTS


def test_a_cut_tar_of_others_is_not_indexed(world, tmp_path: Path) -> None:
    tar = first(world.images, "images")
    cut_and_read("cut: image shard, indexed as foreign", tar, lambda: indexed(tar, tmp_path))


def test_a_cut_image_shard_in_extraction(world) -> None:
    manifest = load_manifest(str(world.images), kind="images")
    table, tar = load_index(manifest, manifest.shards[0]), first(world.images, "images")
    cut_and_read("cut: image shard, extracted from", tar, lambda: extracted_from(tar, table))


@pytest.mark.parametrize("kind", ["images", "targets"])
def test_a_cut_shard_in_training(world, kind) -> None:
    tar = first(getattr(world, kind), kind)
    cut_and_read(
        f"cut: {kind[:-1]} shard, trained on", tar, lambda: trained_on(world.images, world.targets)
    )
