"""Batches of views: how units are cut, what a row holds, what is passed over, what is kept."""

import contextlib
import dataclasses
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from milan_pipeline.errors import DataError
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.view_batches import PixelBuffers, ViewBatch, view_batches
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb, digest
from milan_pipeline.images.views import Box, ViewPolicy
from milan_pipeline.shards.sequential import iterate_shard
from milan_pipeline.targets.unit_list import list_units
from milan_pipeline.targets.units import Mark, Unit
from tests.support.extraction import SIZE, RowTeacher, extract, job_on, threads_of_pools
from tests.support.processes import PATIENCE


class MeetingPolicy(ViewPolicy):
    """Has each decoding thread wait, at its first image, until all of them have one."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        object.__setattr__(self, "meeting", threading.Barrier(threads, timeout=PATIENCE))
        object.__setattr__(self, "met", threading.local())

    def box(self, height: int, width: int, key: str, view: int) -> Box:
        if not getattr(self.met, "there", False):  # type: ignore[attr-defined]
            self.met.there = True  # type: ignore[attr-defined]
            self.meeting.wait()  # type: ignore[attr-defined]
        return super().box(height, width, key, view)


class CountedBuffers(PixelBuffers):
    """Notes which buffers there are, and keeps them, so that each has an address of its own."""

    def __init__(self, shape: tuple[int, int, int, int], *, pinned: bool) -> None:
        super().__init__(shape, pinned=pinned)
        self.made: dict[int, torch.Tensor] = {}

    def take(self) -> torch.Tensor:
        buffer_BCSS = super().take()
        self.made[buffer_BCSS.data_ptr()] = buffer_BCSS
        return buffer_BCSS


def buffers_of(job: ExtractionJob) -> CountedBuffers:
    buffers = CountedBuffers.of(job, list_units(job.manifest, 1))
    assert isinstance(buffers, CountedBuffers)
    return buffers


def batches_of(job: ExtractionJob, units: Sequence[Unit]) -> list[ViewBatch]:
    batches = list(view_batches(job, units, buffers_of(job)))
    assert all(isinstance(batch, ViewBatch) for batch in batches)
    return [batch for batch in batches if isinstance(batch, ViewBatch)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_rows_are_the_views_of_their_images(tmp_path: Path, workers: int) -> None:
    job = job_on(tmp_path, [10, 3], workers=workers)
    units = list_units(job.manifest, 2)
    batches = batches_of(job, units)
    for unit in units:
        ours = [batch for batch in batches if batch.unit == unit]
        assert [batch.last for batch in ours] == [False] * (len(ours) - 1) + [True]
        rows = [(batch, row) for batch in ours for row in batch.good_rows()]
        samples = list(iterate_shard(job.manifest, unit.shard))
        for (batch, row), sample in zip(rows, samples, strict=True):
            rgb = decode_rgb(sample.members["jpg"])
            height, width, _ = rgb.shape
            box = job.policy.box(height, width, sample.key, unit.view)
            assert batch.keys[row] == sample.key
            assert batch.digest[row] == digest(sample.members["jpg"])
            assert (*batch.box[row], batch.flip[row]) == (*box.numbers, box.flip)
            assert tuple(batch.size[row]) == (height, width)
            assert torch.equal(batch.buffer_BCSS[row], view_pixels(rgb, box, SIZE))


def test_views_are_resized_as_the_teacher_takes_them(tmp_path: Path) -> None:
    teacher = RowTeacher()
    teacher.interpolation = "bilinear"
    job = dataclasses.replace(job_on(tmp_path, [1], workers=0), teacher=teacher)
    (batch,) = batches_of(job, list_units(job.manifest, 1))
    rgb = decode_rgb(next(iterate_shard(job.manifest, batch.unit.shard)).members["jpg"])
    box = job.policy.box(rgb.shape[0], rgb.shape[1], batch.keys[0], 0)
    assert torch.equal(batch.buffer_BCSS[0], view_pixels(rgb, box, SIZE, interpolation="bilinear"))
    assert not torch.equal(batch.buffer_BCSS[0], view_pixels(rgb, box, SIZE))


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(1, 4, [1]), (4, 4, [4]), (5, 4, [3, 2]), (9, 4, [3, 3, 3]), (23, 10, [8, 8, 7])],
)
def test_a_unit_is_cut_evenly(tmp_path: Path, count: int, size: int, sizes: list[int]) -> None:
    job = job_on(tmp_path, [count, 2], batch_size=size)
    first = [batch for batch in batches_of(job, list_units(job.manifest, 1)) if batch.keys]
    ours = [batch for batch in first if batch.unit.shard.name == "s000.tar"]
    assert [len(batch.keys) for batch in ours] == sizes
    assert {batch.rows for batch in ours} == {sizes[0]}


def test_unreadable_images_leave_their_rows(tmp_path: Path) -> None:
    job = job_on(tmp_path, [6], bad=["0/0", "0/4"], batch_size=3)
    first, second = batches_of(job, list_units(job.manifest, 1))
    assert first.good_rows().tolist() == [1, 2]
    assert second.good_rows().tolist() == [0, 2]
    assert [row["key"] for row in first.skipped() + second.skipped()] == ["k000", "k004"]
    assert "cannot be decoded" in second.skipped()[0]["reason"]


@pytest.mark.parametrize("counts", [[0], [0, 0, 3], [3, 0, 0], [0, 2, 0, 0, 5, 0]])
def test_empty_units_come_in_their_turn(tmp_path: Path, counts: list[int]) -> None:
    job = job_on(tmp_path, counts)
    units = list_units(job.manifest, 1)
    batches = batches_of(job, units)
    assert [batch.unit for batch in batches if batch.last] == list(units)
    sums = [sum(len(batch.keys) for batch in batches if batch.unit == unit) for unit in units]
    assert sums == counts


@pytest.mark.parametrize("done", [[0], [1], [2], [0, 1, 2], [0, 2, 3]])
def test_units_that_are_done_by_now_are_passed_over(tmp_path: Path, done: list[int]) -> None:
    job = job_on(tmp_path, [5, 0, 3, 4])
    units = list_units(job.manifest, 1)
    marks = dict(zip(done, extract(job, [units[number] for number in done]), strict=True))
    found = list(view_batches(job, units, buffers_of(job)))
    ends = [item for item in found if isinstance(item, Mark) or item.last]
    for number, (unit, item) in enumerate(zip(units, ends, strict=True)):
        assert item == marks[number] if number in marks else not isinstance(item, Mark)
        assert isinstance(item, Mark) or item.unit == unit


def test_units_with_stale_marks_are_not(tmp_path: Path) -> None:
    job = job_on(tmp_path, [5])
    units = list_units(job.manifest, 1)
    extract(job, units)
    other = dataclasses.replace(job, identity_hash="other")
    assert len(batches_of(other, units)) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_shard_is_named_and_no_thread_stays(tmp_path: Path, workers: int) -> None:
    job = job_on(tmp_path, [5, 30], workers=workers)
    path = Path(job.manifest.url_of(job.manifest.shards[1]))
    path.write_bytes(path.read_bytes()[:9000])
    before = threads_of_pools()
    with pytest.raises(DataError, match=r"s001\.tar is truncated or damaged"):
        batches_of(job, list_units(job.manifest, 1))
    assert threads_of_pools() == before


def test_one_may_leave_early(tmp_path: Path) -> None:
    job = job_on(tmp_path, [50, 50])
    before = threads_of_pools()
    with contextlib.closing(
        view_batches(job, list_units(job.manifest, 1), buffers_of(job))
    ) as batches:
        assert isinstance(next(batches), ViewBatch)
    assert threads_of_pools() == before


def peak_of(job: ExtractionJob, units: Sequence[Unit]) -> tuple[int, int]:
    """Return how many buffers were made and the most memory that Python and numpy took."""
    buffers = buffers_of(job)
    tracemalloc.start()
    for batch in view_batches(job, units, buffers):
        assert isinstance(batch, ViewBatch)
        buffers.give_back(batch.buffer_BCSS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return len(buffers.made), peak


def test_memory_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    job = job_on(tmp_path, [9] * 60, batch_size=8)
    units = list_units(job.manifest, 1)
    peak_of(job, units)  # what is imported or cached once
    few, many = peak_of(job, units[:20]), peak_of(job, units)
    most = 8 + 2 + 2  # in decoding, decoded, and one that is begun and one that is ended
    assert max(few[0], many[0]) <= most
    assert many[1] - few[1] < sum(unit.shard.bytes for unit in units[20:]) / 4


@pytest.mark.parametrize("counts", [[1] * 60, [1] * 40 + [40] + [1] * 20])
def test_tiny_shards_take_few_and_small_buffers(tmp_path: Path, counts: list[int]) -> None:
    job = job_on(tmp_path, counts, batch_size=256)
    buffers = buffers_of(job)
    for batch in view_batches(job, list_units(job.manifest, 1), buffers):
        assert isinstance(batch, ViewBatch)
        buffers.give_back(batch.buffer_BCSS)
    assert len(buffers.made) <= 8 + 2 + 2
    assert {len(buffer) for buffer in buffers.made.values()} == {max(counts)}


def test_whole_batches_have_room(tmp_path: Path) -> None:
    job = job_on(tmp_path, [1, 3], whole=True, batch_size=6)
    assert {len(batch.buffer_BCSS) for batch in batches_of(job, list_units(job.manifest, 1))} == {6}


def test_the_views_of_bad_rows_are_not_cleared(tmp_path: Path) -> None:
    job = job_on(tmp_path, [4, 4], bad=["1/2"], workers=0)
    buffers = buffers_of(job)
    for batch in view_batches(job, list_units(job.manifest, 1), buffers):
        assert isinstance(batch, ViewBatch)
        good = batch.good_rows()
        buffers.give_back(batch.buffer_BCSS)
    assert len(buffers.made) == 1
    assert np.array_equal(good, [0, 1, 3])


def test_every_thread_has_images_to_decode_also_where_batches_are_small(tmp_path: Path) -> None:
    job = job_on(tmp_path, [240], batch_size=8, workers=24, policy=MeetingPolicy(24))
    assert sum(len(batch.keys) for batch in batches_of(job, list_units(job.manifest, 1))) == 240
