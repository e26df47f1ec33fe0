"""What caching targets costs and saves against a teacher in the loop: arithmetic, no more.

Times are counted in device-seconds: two devices for an hour are two hours.
"""

import dataclasses

STUDENT_MULTIPLY_ADDS = 26e9
"""Of a recipe step (ViT-B/16 encoder, 8 x 512 decoder) per image, forward and backward."""

SECONDS_PER_HOUR = 3600


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is to be trained.

    Attributes:
        images: of the data set.
        views: targets of each image.
        epochs: of each student's pretraining.
        students: that are pretrained from these targets, one after another.
        devices: that train one student.
    """

    images: int
    views: int
    epochs: int
    students: int = 1
    devices: int = 1

    @property
    def cached_forwards(self) -> int:
        """Teacher forwards that caching takes, once."""
        return self.views * self.images

    @property
    def in_loop_forwards(self) -> int:
        """Teacher forwards that training all students with the teacher takes."""
        return self.epochs * self.students * self.images


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bytes:
    """What targets take and what a pair costs to read; `free` is None where nobody can tell."""

    store: int
    shards: int
    pair: float
    free: int | None = None

    @property
    def fits(self) -> bool | None:
        """Whether store and shards have room; None where nobody can tell."""
        return None if self.free is None else self.store + self.shards <= self.free


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """Speeds, None where they are not known.

    Attributes:
        teacher: images/s of the teacher on one device.
        student: images/s of a student without teacher on all of the workload's devices.
        read: bytes/s that the storage gives to all of them.
    """

    teacher: float | None = None
    student: float | None = None
    read: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What comes of it; hours are device-hours, None where a rate is missing.

    Attributes:
        read_bytes_per_s: that a student at full speed needs.
        read_bytes: of one student's whole run.
        teacher_hours: of extracting all targets.
        in_loop_hours: that the teacher takes when it runs in every step of every student.
        break_even_epochs: epochs x students from which on caching takes less time; None if it
            never does, or if that cannot be told.
        limited_rate: images/s that reading allows, where that is less than the student's rate.
        pays: whether caching saves time and can be done.
        why: why it does not.
        notes: what else should be known.
    """

    read_bytes_per_s: float | None
    read_bytes: float
    teacher_hours: float | None
    in_loop_hours: float | None
    break_even_epochs: float | None
    limited_rate: float | None
    pays: bool
    why: tuple[str, ...]
    notes: tuple[str, ...]


def make_plan(work: Workload, sizes: Bytes, rates: Rates) -> Plan:
    """Weigh caching against a teacher in the loop."""
    needed = None if rates.student is None else rates.student * sizes.pair
    is_short = needed is not None and rates.read is not None and needed > rates.read
    limited = rates.read / sizes.pair if is_short and rates.read is not None else None
    break_even = break_even_epochs(work, rates, limited)
    why = tuple(_reasons(work, sizes, rates, limited, break_even))
    return Plan(
        read_bytes_per_s=needed,
        read_bytes=sizes.pair * work.images * work.epochs,
        teacher_hours=_hours(work.cached_forwards, rates.teacher),
        in_loop_hours=_hours(work.in_loop_forwards, rates.teacher),
        break_even_epochs=break_even,
        limited_rate=limited,
        pays=not why,
        why=why,
        notes=tuple(_notes(work, sizes, rates)),
    )


def break_even_epochs(work: Workload, rates: Rates, limited: float | None = None) -> float | None:
    """Return how many epochs x students take as long cached as with the teacher in the loop.

    Of each image, caching costs `views` forwards once; in the loop it costs one in every epoch.
    Where reading is slower than the student, each epoch also loses what it waits.

    Args:
        work: what is to be trained.
        rates: of teacher and student.
        limited: images/s that reading allows, if fewer than the student's rate.

    Returns:
        The number, or None if waiting costs as much as the teacher, or if that cannot be told.
    """
    if limited is None:
        return float(work.views)
    if rates.teacher is None or rates.student is None:
        return None
    forward = 1 / rates.teacher
    wait = work.devices * (1 / limited - 1 / rates.student)
    return work.views * forward / (forward - wait) if forward > wait else None


def step_ratio(teacher_multiply_adds: float) -> float:
    """Return how much longer a recipe step takes with the teacher, by multiply-adds alone."""
    return (STUDENT_MULTIPLY_ADDS + teacher_multiply_adds) / STUDENT_MULTIPLY_ADDS


def _reasons(
    work: Workload, sizes: Bytes, rates: Rates, limited: float | None, break_even: float | None
) -> list[str]:
    """Say why caching does not pay; nothing where it does."""
    reasons, trained = [], work.epochs * work.students
    if work.views >= trained:
        reasons.append(
            f"caching {work.views} views runs the teacher as often as {trained} epochs x students "
            "do: train with fewer views or leave the teacher in the loop"
        )
    elif limited is not None and break_even is None:
        known = rates.teacher is not None
        reasons.append(
            f"storage feeds {limited:.0f} images/s, less than the student's {rates.student:.0f}"
            + (
                ", and waiting for it costs more than the teacher would"
                if known
                else "; whether the teacher costs more than that needs --teacher-rate or --measure"
            )
        )
    elif break_even is not None and break_even >= trained:
        reasons.append(
            f"waiting for storage takes what the teacher would: even after {break_even:.0f} epochs "
            f"x students, not {trained}"
        )
    if sizes.fits is False:
        reasons.append(
            f"store and shards take {sizes.store + sizes.shards} bytes, the disk has {sizes.free}"
        )
    return reasons


def _notes(work: Workload, sizes: Bytes, rates: Rates) -> list[str]:
    notes = []
    if work.views < work.epochs:
        each = work.epochs / work.views
        notes.append(f"each view of an image is trained on {each:.4g} times in a student's run")
    if sizes.fits is None:
        notes.append("whether there is room cannot be told: no --out, or no local disk")
    if rates.teacher is None:
        notes.append("hours need --teacher-rate R or --measure")
    if rates.student is None:
        notes.append("bandwidth needs --student-rate R")
    notes.append("hours count the teacher alone: no decoding, no storage, no packing")
    return notes


def _hours(forwards: int, rate: float | None) -> float | None:
    return None if rate is None else forwards / rate / SECONDS_PER_HOUR
