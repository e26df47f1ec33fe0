"""Killed at random instants and run again, stages on data write the bytes of an undisturbed run."""

import pytest

from tests.faults import jobs
from tests.faults.campaign import scaled
from tests.faults.kill_chain import kill_at_random

KILLS = [
    (jobs.PACK_IMAGES, scaled(60, 2)),
    (jobs.EXTRACT, scaled(60, 2)),
    (jobs.EXTRACT_PARTS, scaled(40, 1)),
    (jobs.PACK_TARGETS, scaled(50, 1)),
    (jobs.TRANSCODE, scaled(40, 1)),
]


@pytest.mark.parametrize(("job", "kills"), KILLS, ids=[job.name for job, _ in KILLS])
def test_killed_at_random(job, kills, inputs, tmp_path) -> None:
    kill_at_random(job, inputs, tmp_path, kills)
