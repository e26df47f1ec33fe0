"""Each stage meets each fault: it ends as ever or with a sentence, and run again, as ever."""

import random

import pytest

from tests.faults.campaign import COUNTS, chance, scaled
from tests.faults.file_systems.campaign import FAULTS, Fault, disturb, draw, kind_of, reached
from tests.faults.file_systems.every_stage import STAGES, Stage

POINTS = scaled(3, 1)
"""Calls that a fault begins with, drawn by chance."""


def tried(stage: Stage) -> list[Fault]:
    """Return the faults that a stage meets: all, or one that was drawn."""
    return chance(stage.name).sample(FAULTS, scaled(len(FAULTS), 2))


@pytest.mark.parametrize("stage", STAGES, ids=[stage.name for stage in STAGES])
def test_every_stage(stage, small) -> None:
    for fault in tried(stage):
        points: random.Random = chance(f"{stage.name} {fault.name}")
        for first in draw(reached(fault, stage, small), POINTS, points):
            disturb(fault, stage, small, first)
        COUNTS[kind_of(fault, stage)].require_none_failed()
