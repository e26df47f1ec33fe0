"""The budget of requests: docs/reliability.md has its table, and `plan` counts by it.

Image shards and store lie in a virtual object store. A unit has six images, so that its codes are
one object and its tar is one read.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.virtual_store import Bucket, open_bucket
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import OrderChoice
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.planning.requests import (
    PAIR_READS,
    Requests,
    extraction_requests,
    packing_requests,
)
from milan_pipeline.planning.store_size import StoreSize
from milan_pipeline.pretraining.feature_data import open_run_data
from milan_pipeline.provenance.identity import Identity, content_hash
from milan_pipeline.shards.cache import CacheConfig
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.shards.random_access import Place
from milan_pipeline.shards.writer import list_as_written
from milan_pipeline.targets.layout import create_root
from milan_pipeline.targets.shard_records import layout_of, write_target_shard
from milan_pipeline.targets.unit_list import list_units
from milan_pipeline.targets.units import Mark, Unit, read_marks, target_shard_name
from milan_pipeline.targets.verification import StoreCheck
from milan_pipeline.targets.verification_work import Checking, extra_names
from tests.support.extraction import extract, job_on
from tests.support.pairs import joined_pairs
from tests.support.stores import identity_of

IMAGES = 6
OBJECTS = 17
"""Of a unit with int8: a group, and for each of eight arrays its metadata and its chunk."""


@dataclasses.dataclass
class World:
    """Two image shards and an empty store, all in a bucket."""

    bucket: Bucket
    job: ExtractionJob
    identity: Identity

    def units(self) -> Sequence[Unit]:
        return list_units(self.job.manifest, 2)

    def extract(self, units: Sequence[Unit]) -> list[Mark]:
        return extract(self.job, units)

    def pack(self, unit: Unit, mark: Mark) -> Shard:
        return write_target_shard(
            f"{self.bucket.url}/packed",
            target_shard_name(unit),
            store=self.job.store,
            unit=unit,
            mark=mark,
            layout=layout_of(self.identity),
            identity_hash=self.job.identity_hash,
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with open_bucket("budget") as bucket:
        job = job_on(tmp_path, [IMAGES, IMAGES], batch_size=IMAGES)
        manifest = dataclasses.replace(
            job.manifest, folder=bucket.upload(tmp_path / "images", "images")
        )
        manifest.save()
        identity = identity_of("int8", 4, 6)
        job = dataclasses.replace(
            job,
            manifest=manifest,
            store=f"{bucket.url}/targets.zarr",
            identity_hash=content_hash(identity),
        )
        create_root(job.store, identity)
        bucket.forget()
        yield World(bucket, job, identity)


def test_a_unit_that_is_extracted(world: World) -> None:
    first, second, *others = world.units()
    world.extract([first])
    mark_group = 2  # the group of the view is written by its first unit
    assert world.bucket.requests == Requests(puts=OBJECTS + mark_group, gets=5)
    world.bucket.forget()
    world.extract([second])
    assert world.bucket.requests == Requests(puts=OBJECTS + 1, gets=5)
    planned = extraction_requests(StoreSize(world.identity), [second], image_bytes=1000)
    assert planned == world.bucket.requests
    world.extract(others)
    assert set(world.bucket.written.values()) == {1}  # no name is written twice


def test_a_unit_that_is_packed(world: World) -> None:
    unit = world.units()[0]
    (mark,) = world.extract([unit])
    world.bucket.forget()
    world.pack(unit, mark)
    assert world.bucket.requests == Requests(puts=2, gets=OBJECTS - 2)  # not the images' sizes
    planned = packing_requests(StoreSize(world.identity), [unit])
    assert planned == Requests(puts=2, gets=OBJECTS - 2 + 1)  # the stage reads its mark
    assert set(world.bucket.written.values()) == {1}


def test_a_unit_that_is_verified(world: World) -> None:
    unit = world.units()[0]
    world.extract([unit])
    world.bucket.forget()
    check = StoreCheck(url=world.job.store, identity=world.identity, images=world.job.manifest)
    Checking(check).do(unit, StopRequest())
    assert world.bucket.requests == Requests(gets=OBJECTS + 2)


def test_what_no_mark_lists_is_looked_for_once_a_view(world: World) -> None:
    world.extract(world.units())
    check = Checking(StoreCheck(url=world.job.store, identity=world.identity))
    names = {unit: check.do(unit, StopRequest()).names for unit in world.units()}
    world.bucket.forget()
    for view in (0, 1):
        units = {u.shard.stem: (u, found) for u, found in names.items() if u.view == view}
        assert extra_names(world.job.store, view, units) == 0
    # Of a view's folder, and of all that lies below it: one for each thousand names.
    assert world.bucket.requests == Requests(lists=2 * 2)


def test_what_is_done_is_listed_once_a_view(world: World) -> None:
    world.extract(world.units())
    world.bucket.forget()
    assert len(read_marks(world.job.store, 2)) == 4
    assert world.bucket.requests == Requests(lists=2, gets=4)


def packed(world: World) -> Manifest:
    """Extract and pack the first view."""
    units = world.units()[:2]
    shards = tuple(
        world.pack(unit, mark) for unit, mark in zip(units, world.extract(units), strict=True)
    )
    common = {"identity": world.identity, "identity_hash": world.job.identity_hash}
    folder = f"{world.bucket.url}/packed"
    return Manifest(kind="targets", folder=folder, shards=shards, common=common)


def test_the_start_of_pretraining(world: World) -> None:
    targets = packed(world)
    targets.save()
    world.bucket.forget()
    choice = OrderChoice(batch=4, lanes=4, block=4, seed=0)
    folders = world.job.manifest.folder, {"": targets.folder}
    data = open_run_data(*folders, views=None, on_missing="error", order=choice)
    assert data.pairs.missing == 0
    ends = 4  # indices: of the first and the last images and targets of a view
    assert world.bucket.requests == Requests(heads=2, gets=2 + ends)  # manifests of any length


def test_a_sample_without_and_with_a_cache(world: World, tmp_path: Path) -> None:
    targets = packed(world)
    shards = targets.shards
    pairs = PairSamples(joined_pairs(world.job.manifest, targets))
    places = [Place(0, 0, shard, row) for shard in (0, 1) for row in range(IMAGES)]

    def read(cache: CacheConfig | None) -> Requests:
        world.bucket.forget()
        assert len(list(pairs.read(iter(places), cache))) == len(places)
        return world.bucket.requests

    assert read(None).gets == (PAIR_READS * len(places)) + 4  # indices, to join their rows
    assert read(None) == Requests(gets=PAIR_READS * len(places)) == Requests(gets=24)
    cache = CacheConfig(folder=tmp_path / "cache", max_bytes=1 << 30)
    assert read(cache).gets == 4  # two tars of images and two of targets, each one range
    whole = [shard.bytes for shard in (*world.job.manifest.shards, *shards)]
    assert sorted(world.bucket.ranges) == sorted(whole)
    assert read(cache) == Requests()


def test_a_manifest_is_not_saved_after_each_shard(world: World) -> None:
    units = world.units()
    written = (
        world.pack(unit, mark) for unit, mark in zip(units, world.extract(units), strict=True)
    )
    manifest = Manifest(kind="targets", folder=f"{world.bucket.url}/packed", shards=())
    order = [target_shard_name(unit) for unit in units]
    listed = list_as_written(manifest, order=order, written=written, stop=StopRequest())
    assert listed.complete
    assert set(world.bucket.written.values()) == {1}


def test_what_requests_cost() -> None:
    requests = Requests(puts=1000, lists=1000, gets=2000, heads=500, deletes=9)
    assert requests.price() == pytest.approx(0.011)
    assert requests.price(1.0, 2.0) == pytest.approx(7.0)
