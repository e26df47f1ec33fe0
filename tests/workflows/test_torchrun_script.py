"""The shell function that starts training on the nodes of a job."""

import os
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from milan_pipeline.stages.submit.scripts import BatchTemplate

TEMPLATE = files("milan_pipeline.workflows").joinpath("slurm", "torchrun.sh")
PROGRAMS = {
    "srun": 'while [ "$1" != bash ]; do shift; done; SLURM_NODEID=0 exec "$@"',
    "nproc": "echo 24",
    "torchrun": 'echo "$OMP_NUM_THREADS"',
}


@pytest.mark.parametrize(
    ("processes", "own", "threads"),
    [(8, None, "3"), (5, None, "4"), (48, None, "1"), (8, "2", "2")],
)
def test_processes_share_the_cores_of_their_node(
    tmp_path: Path, processes: int, own: str | None, threads: str
) -> None:
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    text = TEMPLATE.read_text(encoding="utf-8")
    script = BatchTemplate(text).substitute(container="", processes=processes)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment |= {"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": "7"}
    environment.pop("OMP_NUM_THREADS", None)
    if own is not None:
        environment["OMP_NUM_THREADS"] = own
    said = subprocess.check_output(
        ["bash", "-euc", f"{script}\non_all_nodes pretrain"], env=environment, text=True
    )
    assert said.strip() == threads
