"""Killed at random instants and run again, training ends in the weights of an undisturbed run."""

import pytest

from tests.faults import jobs
from tests.faults.campaign import scaled
from tests.faults.kill_chain import kill_at_random

KILLS = [
    (jobs.PRETRAIN, scaled(40, 2)),
    (jobs.FINETUNE, scaled(40, 1)),
    (jobs.SEGMENT, scaled(15, 1)),
]


@pytest.mark.parametrize(("job", "kills"), KILLS, ids=[job.name for job, _ in KILLS])
def test_killed_at_random(job, kills, inputs, tmp_path) -> None:
    kill_at_random(job, inputs, tmp_path, kills)
