"""Compute what caching targets costs and saves compared with a teacher in the training loop.

Times are counted in device-seconds: two devices for an hour are two hours.
"""

import dataclasses

STUDENT_MULTIPLY_ADDS = 26e9
"""Per image in a step of the recipe (ViT-B/16 encoder, 8 x 512 decoder), forward and backward."""

SECONDS_PER_HOUR = 3600
RECOMMENDED_VIEWS = 4
"""Of a long training; docs/views-and-codecs.md says what is known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is to be trained.

    Attributes:
        images: number of images in the data set.
        views: number of targets of each image.
        epochs: epochs of each student's pretraining.
        students: number of students that are pretrained from these targets, one after another.
        devices: number of devices that train one student.
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
    """Bytes of store and shards, and bytes read for an image alone and with its target.

    `files` are those of the store, with folders. `free` and `free_files` are None if not known.
    """

    store: int
    shards: int
    image: float
    pair: float
    files: int = 0
    free: int | None = None
    free_files: int | None = None

    @property
    def fits(self) -> bool | None:
        """Whether there is enough free space for store and shards; None if it is not known."""
        if self.too_little is not None:
            return False
        return None if self.free is None else True

    @property
    def too_little(self) -> str | None:
        """What the disk has too little of, in words; None if it has enough or that is not known."""
        if self.free is not None and self.store + self.shards > self.free:
            return (
                f"store and shards take {self.store + self.shards} bytes, the disk has {self.free}"
            )
        if self.free_files is not None and self.files > self.free_files:
            return f"the store takes {self.files} files, the disk has room for {self.free_files}"
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """Speeds; None if not known.

    Attributes:
        teacher: images/s of the teacher on one device.
        student: images/s of a student without teacher on all of the workload's devices.
        read: bytes/s of the storage for all devices together.
    """

    teacher: float | None = None
    student: float | None = None
    read: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The result; hours are device-hours, None if a rate is missing.

    Attributes:
        read_bytes_per_s: reading bandwidth that a student at full speed needs.
        read_bytes: bytes read in one student's whole run.
        teacher_hours: hours of the teacher alone, for all targets.
        in_loop_hours: hours of the teacher alone, in every step of every student.
        saved_hours: hours that all students save with targets, less extraction and waiting for
            storage; below 0 if they take longer.
        break_even_epochs: epochs x students from which on caching saves time; None if it never
            does, or if it is not known.
        limited_rate: images/s that reading allows, if that is less than the student's rate.
        pays: whether caching saves time and is possible.
        why: reasons why it does not pay.
        notes: further notes.
    """

    read_bytes_per_s: float | None
    read_bytes: float
    teacher_hours: float | None
    in_loop_hours: float | None
    saved_hours: float | None
    break_even_epochs: float | None
    limited_rate: float | None
    pays: bool
    why: tuple[str, ...]
    notes: tuple[str, ...]


def make_plan(work: Workload, sizes: Bytes, rates: Rates) -> Plan:
    """Compare caching with a teacher in the loop."""
    needed = None if rates.student is None else rates.student * sizes.pair
    limited = limited_rate(sizes, rates)
    break_even = break_even_epochs(work, sizes, rates)
    why = tuple(_reasons(work, sizes, rates, limited, break_even))
    return Plan(
        read_bytes_per_s=needed,
        read_bytes=sizes.pair * work.images * work.epochs,
        teacher_hours=_hours(work.cached_forwards, rates.teacher),
        in_loop_hours=_hours(work.in_loop_forwards, rates.teacher),
        saved_hours=_saved_hours(work, sizes, rates),
        break_even_epochs=break_even,
        limited_rate=limited,
        pays=not why,
        why=why,
        notes=tuple(_notes(work, sizes, rates)),
    )


def break_even_epochs(work: Workload, sizes: Bytes, rates: Rates) -> float | None:
    """Return how many epochs x students take as long with cached targets as with the teacher.

    For each image, caching costs `views` forwards once, and saves `saved_seconds` in every epoch.

    Args:
        work: what is trained.
        sizes: bytes read for each image, with and without a target.
        rates: speeds of teacher, student and storage.

    Returns:
        The number; None if caching saves nothing, or if it is not known.
    """
    if limited_rate(sizes, rates) is None:
        return float(work.views)
    saved = saved_seconds(work, sizes, rates)
    if saved is None or rates.teacher is None:
        return None
    return work.views / rates.teacher / saved if saved > 0 else None


def limited_rate(sizes: Bytes, rates: Rates) -> float | None:
    """Return the pairs/s that can be read, if they are known to be less than the student's rate."""
    if rates.student is None or rates.read is None or rates.student * sizes.pair <= rates.read:
        return None
    return rates.read / sizes.pair


def saved_seconds(work: Workload, sizes: Bytes, rates: Rates) -> float | None:
    """Return the device-seconds that cached targets save for each image in each epoch.

    Computing and reading overlap, so the slower one counts: with the teacher in the loop, student
    and teacher or reading the image; with targets, the student or reading the pair.

    Returns:
        The seconds; below 0 if reading targets costs more than the teacher. None if not known.
    """
    if rates.teacher is None:
        return None
    if rates.student is None or rates.read is None:
        return 1 / rates.teacher  # independent of the student, if nothing waits for storage
    student = work.devices / rates.student
    in_loop = max(student + 1 / rates.teacher, work.devices * sizes.image / rates.read)
    return in_loop - max(student, work.devices * sizes.pair / rates.read)


def recommended_views(epochs: int) -> int:
    """Return how many views an image should have; more than epochs are never seen."""
    return min(RECOMMENDED_VIEWS, epochs)


def step_ratio(teacher_multiply_adds: float) -> float:
    """Return how much longer a recipe step takes with the teacher, by multiply-adds alone."""
    return (STUDENT_MULTIPLY_ADDS + teacher_multiply_adds) / STUDENT_MULTIPLY_ADDS


def _reasons(
    work: Workload, sizes: Bytes, rates: Rates, limited: float | None, break_even: float | None
) -> list[str]:
    """Return the reasons why caching does not pay; none if it does."""
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
            f"waiting for storage takes most of what the teacher would: only {break_even:.0f} "
            f"epochs x students would make up for extraction, and there are {trained}"
        )
    if sizes.too_little is not None:
        reasons.append(sizes.too_little)
    return reasons


def _notes(work: Workload, sizes: Bytes, rates: Rates) -> list[str]:
    notes = []
    if work.views < work.epochs:
        each = work.epochs / work.views
        notes.append(f"each view of an image is trained on {each:.4g} times in a student's run")
    if work.views < (wanted := recommended_views(work.epochs)):
        notes.append(
            f"{wanted} views are recommended for {work.epochs} epochs: give --views {wanted} here "
            "and to extract-targets"
        )
    if sizes.fits is None:
        notes.append("the free space is not known: no --out, or no local disk")
    if rates.teacher is None:
        notes.append("hours need --teacher-rate R or --measure")
    if rates.student is None:
        notes.append("bandwidth needs --student-rate R")
    notes.append("hours count the teacher alone: no decoding, no storage, no packing")
    return notes


def _saved_hours(work: Workload, sizes: Bytes, rates: Rates) -> float | None:
    saved = saved_seconds(work, sizes, rates)
    if saved is None or rates.teacher is None:
        return None
    each = work.epochs * work.students * saved - work.views / rates.teacher
    return work.images * each / SECONDS_PER_HOUR


def _hours(forwards: int, rate: float | None) -> float | None:
    return None if rate is None else forwards / rate / SECONDS_PER_HOUR
