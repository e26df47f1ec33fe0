"""A disk that fills up or is read-only, and two writers: a clear error, or done; then equal."""

import pytest

from tests.faults import jobs
from tests.faults.campaign import COUNTS, SCALE
from tests.faults.refusals import count_failure
from tests.faults.small_disk import can_mount, pages_of, small_disk
from tests.faults.victims import Victims

EVERY = (
    *(jobs.PACK_IMAGES, jobs.EXTRACT, jobs.PACK_TARGETS, jobs.TRANSCODE),
    *(jobs.PRETRAIN, jobs.FINETUNE, jobs.SEGMENT),
)
SHARES = (0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.95) if SCALE == "whole" else (0.02, 0.5)
ROOM = "size=64m"
TRIED = EVERY if SCALE == "whole" else (jobs.EXTRACT, jobs.PACK_TARGETS, jobs.PRETRAIN)
CASES = pytest.mark.parametrize("job", TRIED, ids=[job.name for job in TRIED])


@pytest.fixture(scope="module", autouse=True)
def _mounts(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not can_mount(tmp_path_factory.mktemp("mount") / "disk"):
        pytest.skip("needs the right to mount a tmpfs")


@CASES
def test_a_disk_that_fills_up(job, inputs, tmp_path) -> None:
    """At several shares of what the stage writes."""
    kind, right = f"disk full, {job.name}", inputs.undisturbed(job)
    for share in SHARES:
        size = int(share * pages_of(right.out)) + 4096
        with small_disk(tmp_path / f"disk-{share}", size) as disk:
            out = disk.folder / "out"
            with Victims(job.commands(inputs, out), tmp_path / f"{share}.log") as victims:
                victims.codes()
            disk.remount(ROOM)
            count_failure(kind, job, inputs, out, victims, names=["No space left"])
    COUNTS[kind].require_none_failed()
    assert COUNTS[kind].detected


@CASES
def test_a_read_only_disk(job, inputs, tmp_path) -> None:
    kind = f"read-only disk, {job.name}"
    with small_disk(tmp_path / "disk", 1 << 26) as disk:
        out = disk.folder / "out"
        disk.remount("ro")
        with Victims(job.commands(inputs, out), tmp_path / "log") as victims:
            victims.codes()
        disk.remount("rw")
        count_failure(kind, job, inputs, out, victims, names=[str(disk.folder)])
    COUNTS[kind].require_none_failed()
    assert COUNTS[kind].detected
