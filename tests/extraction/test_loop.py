"""The extraction loop: what it stores, in which order, and when it stops."""

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.errors import DataError, InterruptedRunError
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.loop import extract_units
from milan_pipeline.images.budget import BadImageBudget
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb, digest
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.shards.manifest import Manifest, load_manifest
from milan_pipeline.shards.sequential import iterate_shard
from milan_pipeline.shards.writer import Sample, write_shard
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.unit_list import list_units
from milan_pipeline.targets.units import Mark, Unit, read_marks
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.stores import files_of


@pytest.fixture
def job(image_shards: Path, tiny_clip: Path, tmp_path: Path) -> ExtractionJob:
    return ExtractionJob(
        manifest=load_manifest(str(image_shards), kind="images"),
        store=str(tmp_path / "targets.zarr"),
        identity_hash="id",
        teacher=Teacher.load(TeacherSpec(name=f"local-dir:{tiny_clip}")),
        policy=ViewPolicy(),
        codec=make_codec("float16"),
        batch_size=4,
        workers=2,
    )


def extract(job: ExtractionJob, units: Sequence[Unit], fraction: float = 0.5) -> list[Mark]:
    budget = BadImageBudget(fraction=fraction, images=job.manifest.samples)
    return list(extract_units(job, units, budget, StopRequest()))


def test_every_sample_is_what_its_image_gives(job: ExtractionJob) -> None:
    units = list_units(job.manifest, 2)
    for unit, mark in zip(units, extract(job, units), strict=True):
        group = open_unit(job.store, unit, mark)
        values = {name: group.values(name) for name in group.names}
        samples = list(iterate_shard(job.manifest, unit.shard))
        assert values["key"].tolist() == [sample.key for sample in samples]
        for number, sample in enumerate(samples):
            row = {name: array[number] for name, array in values.items()}
            data = sample.members["jpg"]
            rgb = decode_rgb(data)
            height, width, _ = rgb.shape
            box = job.policy.box(height, width, sample.key, unit.view)
            assert (*row["box"], row["flip"]) == (*box.numbers, box.flip)
            assert row["size"].tolist() == [height, width]
            assert row["digest"] == digest(data)
            targets, prior = job.teacher(view_pixels(rgb, box, 32)[None])
            codes = job.codec.decode(torch.from_numpy(row["codes"]), None)
            torch.testing.assert_close(codes, targets[0], atol=2e-3, rtol=1e-3)
            torch.testing.assert_close(torch.from_numpy(row["prior"]), prior[0], atol=1e-6, rtol=0)


def test_views_differ(job: ExtractionJob) -> None:
    first, second = [unit for unit in list_units(job.manifest, 2) if unit.shard.stem[-1] == "0"]
    groups = [
        open_unit(job.store, unit, mark)
        for unit, mark in zip((first, second), extract(job, [first, second]), strict=True)
    ]
    for name in ("box", "codes", "prior"):
        assert not np.array_equal(groups[0].values(name), groups[1].values(name))
    assert np.array_equal(groups[0].values("digest"), groups[1].values("digest"))


def test_a_units_bytes_do_not_depend_on_workers_or_on_other_units(
    job: ExtractionJob, tmp_path: Path
) -> None:
    units = list_units(job.manifest, 1)
    marks = extract(job, units)
    for workers in (0, 3):
        other = dataclasses.replace(job, workers=workers, store=str(tmp_path / f"w{workers}"))
        assert extract(other, units[1:]) == marks[1:]


def with_bad_images(job: ExtractionJob, folder: Path, bad: int) -> ExtractionJob:
    """Replace the job's images by one shard, the first images of which cannot be read."""
    good = next(iterate_shard(job.manifest, job.manifest.shards[0])).members["jpg"]
    samples = [
        Sample(f"k{number:02d}", {"jpg": good[: len(good) // 2] if number < bad else good})
        for number in range(24)
    ]
    shards = (
        write_shard(str(folder), "empty.tar", []),
        write_shard(str(folder), "a.tar", samples[:12]),
        write_shard(str(folder), "b.tar", samples[12:]),
    )
    manifest = Manifest(kind="images", folder=str(folder), shards=shards)
    return dataclasses.replace(job, manifest=manifest)


def test_unreadable_images_go_to_the_ledger(job: ExtractionJob, tmp_path: Path) -> None:
    job = with_bad_images(job, tmp_path / "bad", 3)
    marks = {mark.shard: mark for mark in extract(job, list_units(job.manifest, 1))}
    assert [marks[name].n for name in ("empty.tar", "a.tar", "b.tar")] == [0, 9, 12]
    assert [row["key"] for row in marks["a.tar"].skipped] == ["k00", "k01", "k02"]
    assert all("cannot be decoded" in row["reason"] for row in marks["a.tar"].skipped)
    unit = Unit(0, job.manifest.shards[1])
    keys = open_unit(job.store, unit, marks["a.tar"]).values("key")
    assert keys.tolist() == [f"k{number:02d}" for number in range(3, 12)]


@pytest.mark.parametrize("size", [4, 64])
def test_padded_as_on_a_gpu_the_targets_are_the_same(
    job: ExtractionJob, tmp_path: Path, size: int
) -> None:
    # Of three shards one is empty, and of one nothing can be read; of the third, most.
    job = dataclasses.replace(with_bad_images(job, tmp_path / "bad", 14), batch_size=size)
    units = list_units(job.manifest, 2)
    stores = {
        name: dataclasses.replace(job, store=str(tmp_path / name), padded=padded, workers=workers)
        for name, padded, workers in (
            ("plain", False, 0), ("padded", True, 0), ("threads", True, 3)
        )
    }  # fmt: skip
    marks = {name: extract(each, units, fraction=1.0) for name, each in stores.items()}
    assert [mark.n for mark in marks["padded"]] == [0, 0, 10] * 2
    assert marks["threads"] == marks["padded"]  # hashes of all bytes among them
    assert files_of(tmp_path / "threads") == files_of(tmp_path / "padded")
    for unit, plain, padded in zip(units, marks["plain"], marks["padded"], strict=True):
        assert padded.skipped == plain.skipped
        expected = open_unit(stores["plain"].store, unit, plain)
        found = open_unit(stores["padded"].store, unit, padded)
        for name in ("key", "box", "flip", "size", "digest"):
            assert np.array_equal(found.values(name), expected.values(name))
        for name in ("codes", "prior"):
            np.testing.assert_allclose(
                found.values(name), expected.values(name), atol=1e-3, rtol=1e-3
            )


def test_too_many_unreadable_images_stop_it_after_the_unit(
    job: ExtractionJob, tmp_path: Path
) -> None:
    job = with_bad_images(job, tmp_path / "bad", 12)
    message = (
        r"12 of 24 images are unreadable, more than --max-bad-fraction 0\.4 allows: a\.tar:k00"
    )
    with pytest.raises(DataError, match=message) as caught:
        extract(job, list_units(job.manifest, 1), fraction=0.4)
    assert str(caught.value).count("a.tar:") == 10
    assert set(read_marks(job.store, 1)) == {
        "done/view-00/empty.json", "done/view-00/a.json"
    }  # fmt: skip


def test_a_stop_keeps_finished_units(job: ExtractionJob) -> None:
    stop = StopRequest()
    budget = BadImageBudget(fraction=0.1, images=24)
    units = list_units(job.manifest, 1)
    marks = extract_units(job, units, budget, stop)
    first = next(marks)
    stop.signal_name = "SIGTERM"
    with pytest.raises(InterruptedRunError, match="SIGTERM received; finished units are kept"):
        next(marks)
    assert read_marks(job.store, 1) == {units[0].mark_path: first.brief()}


def test_a_damaged_shard_is_named(job: ExtractionJob, tmp_path: Path) -> None:
    job = with_bad_images(job, tmp_path / "bad", 0)
    path = tmp_path / "bad" / "b.tar"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"b\.tar is truncated or damaged"):
        extract(job, list_units(job.manifest, 1))


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_ordered_map_keeps_the_order_and_looks_ahead_so_far(workers: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    results = ordered_map(lambda number: number * number, items(), workers=workers, ahead=5)
    assert next(results) == 0
    assert len(taken) <= 5
    assert list(results) == [number * number for number in range(1, 20)]


def test_ordered_map_looks_ahead_by_cost() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in (1, 1, 5, 9, 1, 1, 1, 1):
            taken.append(number)
            yield number

    costly = ordered_map(abs, items(), workers=2, ahead=6, cost=float)
    seen = []
    for number in costly:
        seen.append(number)
        assert sum(taken[len(seen) - 1 : -1]) < 6  # without what it could not know the cost of
    assert seen == taken == [1, 1, 5, 9, 1, 1, 1, 1]


def test_ordered_map_raises_where_the_error_was() -> None:
    def reciprocal(number: int) -> float:
        return 1 / number

    results = ordered_map(reciprocal, [1, 2, 0, 4], workers=2, ahead=4)
    assert [next(results), next(results)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_closed_map_drops_what_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    running, finish = threading.Event(), threading.Event()
    begun: list[int] = []

    shutdown = ThreadPoolExecutor.shutdown

    def finishing(pool: ThreadPoolExecutor, wait: bool = True, **options: bool) -> None:
        shutdown(pool, wait=False, **options)
        finish.set()
        shutdown(pool, wait=wait)

    def hold(number: int) -> int:
        begun.append(number)
        if number == 1:
            running.set()
            assert finish.wait(60)
        return number

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", finishing)
    results = ordered_map(hold, range(9), workers=1, ahead=8)
    assert next(results) == 0
    assert running.wait(60)
    results.close()
    assert begun == [0, 1]
