"""Dask workers as Slurm jobs: the job script, and the command that runs on a cluster."""

import re
import sys
from pathlib import Path

import pytest
from distributed import LocalCluster

from milan_pipeline.cli.main import exit_with
from milan_pipeline.errors import ConfigError
from milan_pipeline.workflows.dask.on_slurm import OnSlurm, command, run_command

SITE = Path(__file__).parents[2] / "workflows" / "dask" / "site.yaml"
STAGE = ("--", "milan-pipeline", "transcode", "a.zarr", "b.zarr")


def on_slurm(*words: object, code: int = 0) -> None:
    found: object = 0
    try:
        exit_with(command, [*map(str, words), *STAGE], "on_slurm")
    except SystemExit as stop:
        found = stop.code
    assert found == code


def test_the_job_script_has_what_the_site_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    site = tmp_path / "site.yaml"
    site.write_text(SITE.read_text() + "queue: long\naccount: ours\nlocal-directory: /scratch\n")
    words = ("--interface", "lo", "--dashboard-port", 0, "--walltime", "00:10:00")
    on_slurm("--config", site, *words, "--dry-run")
    script = capsys.readouterr().out
    header = {line for line in script.splitlines() if line.startswith("#SBATCH")}
    assert header >= {
        "#SBATCH -p long",
        "#SBATCH -A ours",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=30G",
        "#SBATCH -t 00:10:00",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --requeue",
    }
    before, worker = script.split(
        f"{sys.executable} -m distributed.cli.dask_worker tcp://127.0.0.1"
    )
    assert "source .venv/bin/activate\n" in before
    assert "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False\n" in before
    assert worker.rindex("--nthreads 1 ") > worker.index("--nthreads 8 ")  # the last one counts
    assert {"--local-directory /scratch", "--interface lo"} <= set(re.findall(r"--\S+ \S+", worker))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--gpus", 2, "--processes", 2), "would all use the first GPU"),
        (("--fewest", 9), "--fewest 9 is above --most 8"),
        (("--most", 0), "--most 0 is below 1"),
    ],
)
def test_what_cannot_be_is_refused(
    words: tuple[object, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    on_slurm(*words, code=2)
    assert says in capsys.readouterr().err


def test_a_command_that_has_a_scheduler_is_refused() -> None:
    with pytest.raises(ConfigError, match="gets its --scheduler here"):
        OnSlurm(command=("milan-pipeline", "transcode", "a", "b", "--processes=2"))


def test_the_command_is_told_the_scheduler_and_its_exit_code_is_returned(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    write = f"import sys; open({str(told)!r}, 'w').write(' '.join(sys.argv[1:])); sys.exit(75)"
    with LocalCluster(
        n_workers=0, processes=False, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        assert run_command((sys.executable, "-c", write, "word"), cluster) == 75
        assert told.read_text() == f"word --scheduler {cluster.scheduler_address}"
        assert f"Dask's dashboard: {cluster.dashboard_link}" in capsys.readouterr().err
        with pytest.raises(ConfigError, match="no-such-command cannot be run"):
            run_command(("no-such-command",), cluster)
