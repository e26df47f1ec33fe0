"""Dask workers that are Slurm jobs: they come, do the units, and are gone."""

import subprocess
import sys

import pytest

from tests.faults.sameness import files
from tests.slurm.chain import MILAN, PATIENCE, slurm

pytestmark = pytest.mark.slurm
SITE = """\
queue: main
cores: 1
memory: 3GB
walltime: "00:30:00"
host: 127.0.0.1
dashboard-port: 0
"""


def without_record(folder):
    """All bytes but those of the stage's record, which tells of times."""
    return {name: data for name, data in files(folder).items() if "-targets.json" not in name}


def test_a_stage_on_workers_that_are_slurm_jobs_gives_the_same_bytes(cluster, world, tmp_path):
    (tmp_path / "site.yaml").write_text(SITE)
    site = ("--config", tmp_path / "site.yaml", "--log-directory", tmp_path / "logs", "--most", 2)
    for stage, words in (
        ("extract-targets", ("--images", world / "train", "--out", tmp_path / "t")),
        ("pack-targets", ("--targets", tmp_path / "t", "--out", tmp_path / "s")),
    ):
        command = [*MILAN, stage, "--config", world / "recipe.yaml", *words]
        run = [
            sys.executable,
            "-m",
            "milan_pipeline.workflows.dask.on_slurm",
            *site,
            "--",
            *command,
        ]
        answer = subprocess.run(
            [str(word) for word in run], env=cluster, check=False, capture_output=True, text=True,
            timeout=PATIENCE,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        assert "Dask's dashboard: http://" in answer.stderr
    for folder, there in (("t", "targets.zarr"), ("s", "target-shards")):
        assert without_record(tmp_path / folder) == without_record(world / "here" / there)
    ended = slurm(cluster, "squeue", "--states=all", "--noheader", "--format=%j|%T")
    assert "dask-worker|" in ended
    assert "dask-worker|RUNNING" not in ended
