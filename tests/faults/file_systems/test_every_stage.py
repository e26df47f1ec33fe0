"""Each stage meets each fault: it ends as ever or with a sentence, and run again, as ever."""

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
    calls = reached(stage, small)
    for fault in tried(stage):
        for first in draw(calls[fault], POINTS, chance(kind_of(fault, stage))):
            disturb(fault, stage, small, first)
    for fault in FAULTS:
        COUNTS[kind_of(fault, stage)].require_none_failed()
