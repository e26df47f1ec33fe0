"""Two processes of one stage write one output: both complete, or one is told; then it is equal."""

import pytest

from tests.faults import jobs
from tests.faults.campaign import COUNTS, SCALE, scaled
from tests.faults.refusals import count_failure
from tests.faults.victims import Victims

EVERY = (
    *(jobs.PACK_IMAGES, jobs.EXTRACT, jobs.PACK_TARGETS, jobs.TRANSCODE),
    *(jobs.PRETRAIN, jobs.FINETUNE, jobs.SEGMENT),
)


TRIED = EVERY if SCALE == "whole" else (jobs.EXTRACT, jobs.PACK_TARGETS, jobs.PRETRAIN)


@pytest.mark.parametrize("job", TRIED, ids=[job.name for job in TRIED])
def test_two_writers(job, inputs, tmp_path) -> None:
    kind = f"two writers, {job.name}"
    for number in range(scaled(10, 1)):
        out = tmp_path / f"out-{number}"
        with Victims(2 * job.commands(inputs, out), tmp_path / f"{number}.log") as victims:
            victims.codes()
        count_failure(kind, job, inputs, out, victims, names=[str(out)])
    COUNTS[kind].require_none_failed()
