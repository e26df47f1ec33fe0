"""The shell around every job: signals are passed on, and what stopped in order is requeued."""

import signal
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.servers import FakeSlurm

RESUME = (
    files("milan_pipeline.workflows").joinpath("slurm", "resume.sh").read_text(encoding="utf-8")
)
LISTENER = """
listens() {{ # the shell above: SIGUSR1 is the tenth bit of the signals that it catches
    local caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$PPID/status")
    (( 0x$caught & 0x200 ))
}}
until listens; do :; done
end() {{
    {end}
}}
tail -f /dev/null > /dev/null &
trap 'kill $!; echo heard; end' USR1
echo ready
wait
"""
"""A command that says when it and its shell listen, and ends as it is told on the signal."""


def job(
    tmp_path: Path, command: str, run: Path | None = None, variables: str = ""
) -> "subprocess.Popen[str]":
    """Start a job's shell with a command of our own."""
    child = tmp_path / "command.sh"
    child.write_text(command)
    given = "" if run is None else f"run='{run}'\n"
    before = f"set -euo pipefail\nSLURM_JOB_ID=7\n{variables}\n{given}"
    script = f"{before}{RESUME}\nto_the_end bash {child}\n"
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", "-c", script], text=True, stdout=pipe, stderr=pipe)


def stopped(shell: "subprocess.Popen[str]", number: signal.Signals) -> tuple[int, str]:
    """Send a signal to the shell alone once its command listens; return how both ended."""
    with shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "ready\n"
        shell.send_signal(number)
        said, error = shell.communicate(timeout=60)
    assert error == ""
    return shell.returncode, said


@pytest.mark.parametrize(
    ("number", "requeued"),
    [(signal.SIGUSR1, ["scontrol requeue 7"]), (signal.SIGTERM, [])],
)
def test_only_a_job_whose_time_runs_out_is_put_back(
    tmp_path: Path, fake_slurm: FakeSlurm, number: signal.Signals, requeued: list[str]
) -> None:
    shell = job(tmp_path, LISTENER.format(end="exit 75"))
    assert stopped(shell, number) == (75, "heard\n")
    assert fake_slurm.calls == requeued


def test_a_task_is_put_back_without_its_array(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    """The last task of an array has the array's own id."""
    array = "SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=3"
    shell = job(tmp_path, LISTENER.format(end="exit 75"), variables=array)
    assert stopped(shell, signal.SIGUSR1)[0] == 75
    assert fake_slurm.calls == ["scontrol requeue 7_3"]


def test_a_stop_that_fails_is_a_failure(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    assert stopped(job(tmp_path, LISTENER.format(end="exit 1")), signal.SIGUSR1)[0] == 1
    assert fake_slurm.calls == []


@pytest.mark.parametrize(
    ("before", "after", "requeued"),
    [
        ("running", "interrupted", True),
        (None, "interrupted", True),
        ("running", "running", True),  # nothing was begun when the signal came
        ("interrupted", "broken", False),
    ],
)
def test_a_run_says_itself_how_it_ended_where_torchrun_does_not(
    tmp_path: Path, fake_slurm: FakeSlurm, before: str | None, after: str, *, requeued: bool
) -> None:
    run = tmp_path / "a run"
    run.mkdir()
    state = run / "state.json"
    if before is not None:
        state.write_text(f'{{"state": "{before}"}}')
    end = f"""printf '{{"state": "{after}"}}' > '{state}'; exit 1"""
    shell = job(tmp_path, LISTENER.format(end=end), run)
    assert stopped(shell, signal.SIGUSR1)[0] == 1
    assert fake_slurm.calls == (["scontrol requeue 7"] if requeued else [])


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_command_that_ends_by_itself_speaks_for_the_job(
    tmp_path: Path, fake_slurm: FakeSlurm, code: int
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "state.json").write_text('{"state": "interrupted"}')
    with job(tmp_path, f"exit {code}", run) as shell:
        assert shell.wait(timeout=60) == code
    assert fake_slurm.calls == []


def times_put_back(tmp_path: Path, fake_slurm: FakeSlurm, end: str, variables: str) -> list[int]:
    """Interrupt a job six times; count the requeues after each."""
    counts = []
    for _ in range(6):
        command = LISTENER.format(end=f"{end}; exit 75")
        interrupted(job(tmp_path, command, tmp_path / "run", variables))
        counts.append(len(fake_slurm.calls))
    return counts


def interrupted(shell: "subprocess.Popen[str]") -> str:
    """Tell a job that its time runs out, and return what it says of that."""
    with shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "ready\n"
        shell.send_signal(signal.SIGUSR1)
        return shell.communicate(timeout=60)[1]


def test_a_job_that_gets_no_further_is_not_put_back_without_end(
    tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.json").write_text('{"state": "interrupted", "step": 4}')
    assert times_put_back(tmp_path, fake_slurm, ":", "") == [1, 2, 3, 3, 3, 3]
    error = interrupted(job(tmp_path, LISTENER.format(end="exit 75"), tmp_path / "run"))
    assert "its time limit does not suffice for one checkpoint" in error
    # What is submitted again is another job.
    assert times_put_back(tmp_path, fake_slurm, ":", "SLURM_JOB_ID=8")[:2] == [4, 5]


def test_a_job_that_gets_further_is_put_back_each_time(
    tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    state = tmp_path / "run" / "state.json"
    state.parent.mkdir()
    state.write_text('{"state": "interrupted", "step": 0}')
    further = f"""sed -i 's/"step": /"step": 1/' '{state}'"""
    assert times_put_back(tmp_path, fake_slurm, further, "") == [1, 2, 3, 4, 5, 6]


def test_the_tasks_of_an_array_count_for_themselves_by_the_units_that_are_done(
    tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    store = tmp_path / "store" / "done" / "view-00"
    store.mkdir(parents=True)
    places = f"output={tmp_path}/store requeues={tmp_path}/requeues/extract"
    array = f"SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=3 {places}; unset run"
    child = LISTENER.format(end="exit 75")
    for _ in range(5):
        interrupted(job(tmp_path, child, variables=array))
    assert len(fake_slurm.calls) == 3
    (store / "x.json").write_text("{}")
    interrupted(job(tmp_path, child, variables=array))
    assert len(fake_slurm.calls) == 4
    assert [path.name for path in (tmp_path / "requeues").iterdir()] == ["extract-3"]
