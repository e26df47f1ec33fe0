"""The extraction loop in time: who waits for whom, what a failure or another process leaves."""

import dataclasses
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import DataError, InterruptedRunError, StorageError
from milan_pipeline.extraction.loop import extract_units
from milan_pipeline.images.budget import BadImageBudget
from milan_pipeline.targets.layout import OUTER_SHARD
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.unit_list import list_units
from milan_pipeline.targets.units import Mark, read_marks
from tests.support.disturbances import at_put
from tests.support.extraction import RowTeacher, extract, job_on, threads_of_pools
from tests.support.remote import Action, Request, answering, watched
from tests.support.stores import files_of

PATIENCE = 60.0  # seconds until a test gives up waiting for what must happen


class SignallingTeacher(RowTeacher):
    """Sets an event when its n-th batch begins."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.begun = threading.Event()
        self._number = number

    def __call__(self, pixels_BCSS: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        if len(self.batches) + 1 == self._number:
            self.begun.set()
        return super().__call__(pixels_BCSS)


def test_the_teacher_goes_on_while_a_batch_is_written(tmp_path: Path) -> None:
    teacher = SignallingTeacher(3)  # two batches are under way by then
    asked = itertools.count()

    def hold(request: Request, action: Action) -> Any:
        # Who reads ahead asks for the mark first; then the writer does, before its first batch.
        if "/done/" in request.path and request.doing == "read" and next(asked) == 1:
            assert teacher.begun.wait(PATIENCE)
        return action()

    job = job_on(tmp_path, [16], teacher=teacher, store=watched(tmp_path / "targets.zarr"))
    with answering(hold):
        assert [mark.n for mark in extract(job, list_units(job.manifest, 1))] == [16]
    assert next(asked) > 1


def test_the_teacher_goes_on_while_a_unit_is_finished(tmp_path: Path) -> None:
    teacher = SignallingTeacher(3)  # the last one of the second unit
    job = job_on(tmp_path, [4, 8], teacher=teacher, store=watched(tmp_path / "targets.zarr"))
    with at_put(lambda _: teacher.begun.wait(PATIENCE), at="/s000/"):
        assert [mark.n for mark in extract(job, list_units(job.manifest, 1))] == [4, 8]
    assert teacher.begun.is_set()


def test_marks_come_in_order_each_before_the_next_is_left(tmp_path: Path) -> None:
    job = job_on(tmp_path, [3, 0, 9, 1, 5])
    units = list_units(job.manifest, 2)
    budget = BadImageBudget(fraction=0, images=18)
    seen: list[int] = []
    for number, mark in enumerate(extract_units(job, units, budget, StopRequest(), seen.append)):
        assert (mark.view, mark.shard) == (units[number].view, units[number].shard.name)
        there = read_marks(job.store, 2)
        assert list(there) == [unit.mark_path for unit in units[: number + 1]]
    assert sum(seen) == 2 * 18


@pytest.mark.parametrize("failing", [0, 3])
def test_a_unit_without_one_of_its_batches_has_no_mark(tmp_path: Path, failing: int) -> None:
    """Each batch is an object of codes, and a folder has the name of one."""
    size = OUTER_SHARD
    job = job_on(tmp_path, [2 * size, 2 * size, 1], workers=0, batch_size=size)
    undisturbed = dataclasses.replace(job, store=str(tmp_path / "undisturbed"))
    extract(undisturbed, list_units(job.manifest, 1))
    failed = list_units(job.manifest, 1)[failing // 2]
    wall = Path(job.store) / failed.path / f"codes/c/{failing % 2}/0/0"
    wall.mkdir(parents=True)
    threads = threads_of_pools()
    with pytest.raises(StorageError, match="Is a directory"):
        extract(job, list_units(job.manifest, 1))
    assert threads_of_pools() <= threads
    wall.rmdir()
    assert failed.mark_path not in read_marks(job.store, 1)
    extract(job, list_units(job.manifest, 1))
    assert files_of(Path(job.store)) == files_of(tmp_path / "undisturbed")


def test_what_a_stop_interrupts_is_kept_if_it_is_whole(tmp_path: Path) -> None:
    job = job_on(tmp_path, [4, 4, 4, 4])
    units, stop = list_units(job.manifest, 1), StopRequest()
    marks = extract_units(job, units, BadImageBudget(fraction=0, images=16), stop)
    found = [next(marks)]
    stop.signal_name = "SIGTERM"
    with pytest.raises(InterruptedRunError, match="finished units are kept"):
        found += marks
    there = read_marks(job.store, 1)
    assert found[0].brief() in there.values()
    for path, mark in there.items():
        unit = next(unit for unit in units if unit.mark_path == path)
        open_unit(job.store, unit, mark)


def test_leaving_early_ends_all_threads(tmp_path: Path) -> None:
    job = job_on(tmp_path, [4] * 9)
    threads = threads_of_pools()
    budget = BadImageBudget(fraction=0, images=36)
    marks = extract_units(job, list_units(job.manifest, 1), budget, StopRequest())
    next(marks)
    marks.close()
    assert threads_of_pools() <= threads


def test_two_processes_with_the_same_units_do_no_harm(tmp_path: Path) -> None:
    store = tmp_path / "targets.zarr"
    job = job_on(tmp_path, [6, 6], store=watched(store))
    units = list_units(job.manifest, 1)
    # The other one has read, and found no marks, before the first is through.
    other = extract_units(
        dataclasses.replace(job, teacher=RowTeacher()), units,
        BadImageBudget(fraction=0, images=12), StopRequest(),
    )  # fmt: skip
    first = next(other)
    marks = extract(job, units)
    assert marks[0] == first
    before = files_of(store)
    revocations: list[str] = []

    def noted(request: Request) -> None:
        if b'"identity_hash": ""' in request.data:
            revocations.append(request.path)

    with at_put(noted, at="/done/"):
        assert [first, *other] == marks
    assert not revocations
    assert files_of(store) == before


def test_what_another_process_finished_is_yielded_not_done_again(tmp_path: Path) -> None:
    job = job_on(tmp_path, [6, 6, 0, 2], bad=["1/3"])
    units = list_units(job.manifest, 1)
    marks = extract(job, units)
    teacher = RowTeacher()
    budget = BadImageBudget(fraction=0.5, images=14)
    again = dataclasses.replace(job, teacher=teacher)
    seen: list[int] = []
    assert list(extract_units(again, units, budget, StopRequest(), seen.append)) == marks
    assert teacher.batches == []
    assert sum(seen) == 14
    assert list(budget.ledger) == ["s001.tar:k003"]


def test_a_damaged_mark_is_named(tmp_path: Path) -> None:
    job = job_on(tmp_path, [2])
    units = list_units(job.manifest, 1)
    extract(job, units)
    (Path(job.store) / units[0].mark_path).write_text("{")
    with pytest.raises(DataError, match=r"s000\.json is damaged .* delete it"):
        extract(job, units)


def test_one_unit_after_the_other_gives_the_same_bytes(tmp_path: Path) -> None:
    job = job_on(tmp_path, [9, 2, 14], bad=["2/5"])
    units = list_units(job.manifest, 2)
    marks: list[Mark] = extract(job, units)
    apart = dataclasses.replace(job, store=str(tmp_path / "apart"))
    for unit, mark in reversed(list(zip(units, marks, strict=True))):
        assert extract(apart, [unit]) == [mark]
    assert files_of(tmp_path / "apart") == files_of(Path(job.store))
