"""All parts in order: what must be right, then how fast; what has a goal comes first."""

import functools

from benchmarks.gpu import (
    extraction,
    feeding,
    kernels,
    numbers,
    rates,
    resume,
    students,
    teachers,
    waits,
    worlds,
)
from benchmarks.gpu.running import Part

PARTS: dict[str, Part] = {
    "rates": rates.measure,
    "numbers-teacher": numbers.teachers,
    "numbers-codecs": numbers.codecs,
    "numbers-step": numbers.step,
    "waits": waits.check,
    "resume-extraction": resume.extraction,
    "resume-training": resume.training_run,
    "two-processes": worlds.check,
    "student-b16": functools.partial(students.measure, "B/16"),
    "online-b16": functools.partial(students.online, "B/16"),
    "teacher-b16": functools.partial(teachers.measure, "B/16"),
    "decoding": extraction.decoding,
    "extraction-b16": functools.partial(extraction.measure, "B/16"),
    "targets": feeding.targets,
    "loader": feeding.loader,
    "teacher-l14": functools.partial(teachers.measure, "L/14"),
    "online-l14": functools.partial(students.online, "L/14"),
    "extraction-l14": functools.partial(extraction.measure, "L/14"),
    "student-l16": functools.partial(students.measure, "L/16"),
    "kernels": kernels.measure,
    "student-b16-bf16-tokens": students.residual,
}

STARTING = {"resume-extraction", "resume-training", "two-processes"}
"""Parts that only start processes."""
