"""Each stage meets each fault: it ends as ever or with a sentence, and run again, as ever."""

import pytest

from tests.faults.campaign import COUNTS, chance, scaled
from tests.faults.file_systems.campaign import FAULTS, disturb, kind_of, reached
from tests.faults.file_systems.every_stage import STAGES


@pytest.mark.parametrize("stage", STAGES, ids=[stage.name for stage in STAGES])
def test_every_stage(stage, small) -> None:
    """A fault begins with a call that is drawn; of a slice, the faults are drawn, too."""
    calls = reached(stage, small)
    met = [fault for fault in FAULTS if calls[fault]]
    drawn = chance(stage.name).sample(met, scaled(len(met), 2))
    for fault in drawn:
        disturb(fault, stage, small, chance(kind_of(fault, stage)).randint(1, calls[fault]))
    for fault in drawn:
        COUNTS[kind_of(fault, stage)].require_none_failed()
