"""The break-even and its reasons, against the step-by-step sums."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milan_pipeline.planning.costs import (
    Bytes,
    Plan,
    Rates,
    Workload,
    break_even_epochs,
    make_plan,
    step_ratio,
)

SIZES = Bytes(store=100, shards=100, image=4.0, pair=10.0, free=1000)
WORK = Workload(images=3600, views=2, epochs=10, students=3)
NONE = Rates()
counts = st.integers(1, 500)
rates = st.floats(1, 1e4)


def plan(known: Rates = NONE, work: Workload = WORK, sizes: Bytes = SIZES) -> Plan:
    return make_plan(work, sizes, known)


def test_hours_are_forwards_over_the_rate() -> None:
    found = plan(Rates(teacher=2.0))
    assert (found.teacher_hours, found.in_loop_hours) == (1.0, 15.0)
    assert (found.break_even_epochs, found.pays, found.why) == (2.0, True, ())


def test_without_rates_there_are_no_hours() -> None:
    found = plan()
    assert (found.teacher_hours, found.in_loop_hours, found.read_bytes_per_s) == (None, None, None)
    assert found.break_even_epochs == 2.0
    assert any("--teacher-rate" in note for note in found.notes)
    assert any("--student-rate" in note for note in found.notes)


def test_reading() -> None:
    found = plan(Rates(student=50.0))
    assert found.read_bytes_per_s == 500
    assert found.read_bytes == 10 * 3600 * 10
    assert found.limited_rate is None


@pytest.mark.parametrize(("views", "pays"), [(29, True), (30, False), (31, False)])
def test_as_many_views_as_epochs_do_not_pay(views: int, pays: bool) -> None:
    found = plan(work=Workload(images=9, views=views, epochs=10, students=3))
    assert found.pays is pays
    assert pays or f"caching {views} views" in found.why[0]


def test_no_room() -> None:
    found = plan(sizes=Bytes(store=100, shards=100, image=1, pair=1, free=199))
    assert not found.pays
    assert found.why == ("store and shards take 200 bytes, the disk has 199",)
    assert plan(sizes=Bytes(store=100, shards=100, image=1, pair=1, free=200)).pays
    unknown = plan(sizes=Bytes(store=100, shards=100, image=1, pair=1))
    assert unknown.pays
    assert any("the free space is not known" in note for note in unknown.notes)


def slow(teacher: float | None = None, read: float = 500) -> Plan:
    """The student alone takes 10 ms an image, reading a pair 20 ms: it waits 10 ms."""
    return plan(Rates(student=100, read=read, teacher=teacher))


def test_slow_storage_is_weighed_against_the_teacher() -> None:
    found = slow(50)  # the teacher would take 20 ms
    assert found.limited_rate == 50
    assert found.break_even_epochs == pytest.approx(2 * 20 / (20 - 10))
    assert found.pays
    # An hour an epoch for each second an image: 30 times 10 ms, less 2 forwards of 20 ms.
    assert found.saved_hours == pytest.approx(0.3 - 0.04)
    assert not slow(101.0).pays
    assert slow(101.0).break_even_epochs is None
    assert "more than the teacher would" in slow(101.0).why[0]
    nearly = slow(99.0)
    assert not nearly.pays
    assert "there are 30" in nearly.why[0]
    assert nearly.saved_hours is not None
    assert nearly.saved_hours < 0
    assert "needs --teacher-rate or --measure" in slow().why[0]


def test_a_teacher_in_the_loop_waits_for_images_too() -> None:
    # 10 ms the student and 10 ms the teacher, beside 80 ms of reading an image or 200 ms a pair.
    assert slow(100, read=50).break_even_epochs is None
    # The teacher's 50 ms beside 40 ms an image and 100 ms a pair; at 20 ms a pair it is cheaper.
    assert not slow(20, read=100).pays
    assert slow(20, read=500).break_even_epochs == pytest.approx(2 * 50 / (60 - 20))
    # Images that are nearly all of a pair: whoever trains, waits.
    heavy = Bytes(store=1, shards=1, image=9.0, pair=10.0)
    found = plan(Rates(student=100, read=100, teacher=20), sizes=heavy)  # 90 ms, 100 ms
    assert (found.break_even_epochs, found.pays) == (None, False)


def test_fast_storage_changes_nothing() -> None:
    assert plan(Rates(student=100.0, read=1000.0)) == plan(Rates(student=100.0))


@pytest.mark.parametrize(
    ("views", "epochs", "wanted"),
    [(1, 400, 4), (3, 400, 4), (4, 400, None), (1, 2, 2), (2, 2, None)],
)
def test_fewer_views_than_are_recommended_are_noted(
    views: int, epochs: int, wanted: int | None
) -> None:
    notes = plan(work=Workload(images=1, views=views, epochs=epochs)).notes
    found = [note for note in notes if "recommended" in note]
    assert len(found) == (wanted is not None)
    assert all(f"give --views {wanted} here" in note for note in found)


@pytest.mark.parametrize(("views", "said"), [(1, "10 times"), (4, "2.5 times"), (10, None)])
def test_views_that_come_again_are_noted(views: int, said: str | None) -> None:
    found = [n for n in plan(work=Workload(images=1, views=views, epochs=10)).notes if "times" in n]
    assert bool(found) == (said is not None)
    assert said is None or said in found[0]


def test_the_design_s_step_ratios() -> None:
    assert step_ratio(17.6e9) == pytest.approx(1.68, abs=0.01)
    assert step_ratio(61e9) == pytest.approx(3.35, abs=0.01)


@given(
    work=st.builds(
        Workload, images=st.just(7), views=counts, epochs=counts, devices=st.integers(1, 9)
    ),
    teacher=rates,
    student=rates,
    read=rates,
    image=st.floats(0, 10),
)
def test_at_the_break_even_both_take_the_same_time(
    work: Workload, teacher: float, student: float, read: float, image: float
) -> None:
    sizes = Bytes(store=1, shards=1, image=image, pair=10.0)
    known = Rates(teacher=teacher, student=student, read=read)
    even = break_even_epochs(work, sizes, known)

    def seconds(trained: float) -> tuple[float, float]:
        wait = work.devices * max(1 / student, 10 / read)
        step = work.devices * max(1 / student + 1 / teacher / work.devices, image / read)
        return work.views / teacher + trained * wait, trained * step

    if even is None:
        cached, in_loop = seconds(1e9)
        assert cached > in_loop * (1 - 1e-9)
    else:
        cached, in_loop = seconds(even)
        assert cached == pytest.approx(in_loop)
    cached, in_loop = seconds(work.epochs)
    saved = make_plan(work, sizes, known).saved_hours
    assert saved == pytest.approx(7 * (in_loop - cached) / 3600, rel=1e-6, abs=1e-6)


def test_no_room_for_files() -> None:
    few = Bytes(store=1, shards=1, image=1, pair=1, files=9, free=1000, free_files=8)
    assert plan(sizes=few).why == ("the store takes 9 files, the disk has room for 8",)
    assert plan(sizes=dataclasses.replace(few, free_files=9)).pays
