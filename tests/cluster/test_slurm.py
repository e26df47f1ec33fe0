"""What is asked of Slurm's commands, and how their answers are read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milan_pipeline.cluster.slurm import Queued, in_ranges, queued_jobs, submit_script
from milan_pipeline.errors import StorageError
from tests.support.servers import FakeSlurm


@given(st.sets(st.integers(0, 60)))
def test_ranges_name_each_number_once(numbers: set[int]) -> None:
    named: list[int] = []
    for piece in in_ranges(sorted(numbers)).split(",") if numbers else []:
        first, _, last = piece.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(numbers)
    assert in_ranges([0, 1, 2, 3, 7, 9, 10]) == "0-3,7,9-10"


def test_the_queue_is_told_by_name_with_an_arrays_tasks(fake_slurm: FakeSlurm) -> None:
    fake_slurm.queue = [
        "7|N/A|milan-pack-x", "6|1|milan-extract-x", "6|4|milan-extract-x", "9|2|milan-extract-x",
        "5|N/A|milan-pack-y", "4|N/A|bash",
    ]  # fmt: skip
    assert queued_jobs("-x") == {
        "milan-pack-x": Queued(("7",)),
        "milan-extract-x": Queued(("6", "9"), frozenset({1, 2, 4})),
    }


def test_jobs_wait_for_each_other(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    script = tmp_path / "job.sbatch"
    job = submit_script(script, after=["5", "6"], after_any=["4"], array=[0, 1, 3])
    assert job == "101"
    awaited = "--dependency=afterok:5,afterok:6,afterany:4 --kill-on-invalid-dep=yes"
    assert fake_slurm.calls == [f"sbatch --parsable {awaited} --array=0-1,3 {script}"]


def test_what_slurm_refuses_is_told_in_its_words(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.refuse = "Invalid account"
    with pytest.raises(StorageError, match=r"`sbatch --parsable .*` failed \(Invalid account\)"):
        submit_script(tmp_path / "job.sbatch", after=[], array=None)
