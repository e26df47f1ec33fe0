"""`log.jsonl` holds each step once, `state.json` tells how far a run has come."""

import contextlib
import errno
import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from milan_pipeline.cluster.world import World
from milan_pipeline.errors import StorageError
from milan_pipeline.provenance.run_state import trained_steps, write_state
from milan_pipeline.training.run_folder import EVENT_THREADS, RunFolder, RunLog, run_lock

FORK = multiprocessing.get_context("fork")


def held(run: Path) -> None:
    with run_lock(run):
        pass


def write(run, steps, *, resume_step, loss=0.0):
    with contextlib.closing(RunLog(run, resume_step=resume_step)) as log:
        log.write({"step": step, "loss": loss + step} for step in steps)


def logged(run):
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def test_a_file_in_the_place_of_checkpoints_is_named_before_the_first_step(tmp_path):
    (tmp_path / "checkpoints").write_text("x")
    opened = RunFolder(tmp_path, World()).opened(0, 5, keep=1)
    with (
        pytest.raises(StorageError, match=r"checkpoints cannot be written .* of another kind"),
        opened,
    ):
        pass


def test_a_resume_drops_the_steps_that_are_done_again(tmp_path):
    write(tmp_path, range(1, 8), resume_step=0)
    write(tmp_path, range(5, 9), resume_step=4, loss=0.5)
    assert logged(tmp_path) == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 4),
        (5, 5.5),
        (6, 6.5),
        (7, 7.5),
        (8, 8.5),
    ]


@pytest.mark.parametrize(
    "torn", ['{"step": 3, "lo', "{", '{"loss": 1}', "3", "null", '{"step": "x"}']
)
def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path, torn):
    write(tmp_path, [1, 2], resume_step=0)
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write(torn)
    write(tmp_path, [3, 4], resume_step=2)
    assert logged(tmp_path) == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_lines_are_on_disk_before_the_log_is_closed(tmp_path):
    with contextlib.closing(RunLog(tmp_path, resume_step=0)) as log:
        log.write([{"step": 1, "loss": 2.0}])
        assert logged(tmp_path) == [(1, 2.0)]


def test_what_precedes_an_error_is_logged(tmp_path):
    def rows():
        yield {"step": 1, "loss": 2.0}
        raise ValueError("step 2 is not finite")

    with (
        pytest.raises(ValueError, match="step 2"),
        contextlib.closing(RunLog(tmp_path, resume_step=0)) as log,
    ):
        log.write(rows())
    assert logged(tmp_path) == [(1, 2.0)]


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path):
    write(tmp_path, range(1, 5), resume_step=0)
    write(tmp_path, range(3, 6), resume_step=2, loss=0.5)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(row.step, row.value) for row in events] == [
        (1, 1), (2, 2), (3, 3.5), (4, 4.5), (5, 5.5)
    ]  # fmt: skip


def test_the_state_tells_how_far_a_run_has_come(tmp_path):
    assert trained_steps(tmp_path) == 0
    write_state(tmp_path, "interrupted", step=7, total_steps=12)
    assert trained_steps(tmp_path) == 7
    state = json.loads((tmp_path / "state.json").read_text())
    assert (state["state"], state["total_steps"]) == ("interrupted", 12)


def test_a_run_folder_is_held_by_one_process(tmp_path: Path) -> None:
    with run_lock(tmp_path / "run"), ProcessPoolExecutor(1, mp_context=FORK) as other:
        refused = other.submit(held, tmp_path / "run").exception()
    assert isinstance(refused, StorageError)
    assert "another process trains into" in str(refused)
    held(tmp_path / "run")


def test_a_child_does_not_hold_the_folder_of_a_run_that_has_ended(tmp_path: Path) -> None:
    """Loader processes may outlive a run that was killed."""
    with ProcessPoolExecutor(1, mp_context=FORK) as child:
        with run_lock(tmp_path / "run"):
            child.submit(int).result()  # starts it
        with ProcessPoolExecutor(1, mp_context=FORK) as other:
            other.submit(held, tmp_path / "run").result()


def test_a_log_on_a_full_disk_says_so(tmp_path: Path) -> None:
    log = RunLog(tmp_path, resume_step=0)
    log._stream.close()
    log._stream = Path("/dev/full").open("w")  # noqa: SIM115 - is closed by the log
    full = r"log.jsonl cannot be written \(No space left"
    with pytest.raises(StorageError, match=full):
        log.write([{"step": 1}])
    with pytest.raises(StorageError, match=full):
        log.close()
    assert log._stream.closed


def test_only_a_disks_errors_are_blamed_on_the_disk(tmp_path: Path) -> None:
    """The death of a loader process is told by whichever line runs then."""
    log = RunLog(tmp_path, resume_step=0)
    with pytest.raises(TypeError, match="not JSON serializable"):
        log.write([{"step": 1, "loss": object()}])
    log.close()


def test_a_disks_error_under_the_events_prints_no_traceback(tmp_path: Path) -> None:
    """The next write raises it. Unseen errors of threads are failures here, see pyproject.toml."""

    class Writer(threading.Thread):
        __module__ = EVENT_THREADS

        def run(self) -> None:
            raise OSError(28, "No space left on device")

    RunLog(tmp_path, resume_step=0).close()
    thread = Writer()
    thread.start()
    thread.join()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_trained_into_with_a_warning(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fcntl.lockf", refusing(number))
    with run_lock(tmp_path / "run"):
        assert "lies on a file system without locks" in caplog.text


@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN])
def test_a_lock_that_another_holds_is_told_by_either_error(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.lockf", refusing(number))
    with pytest.raises(StorageError, match="another process trains into"):
        held(tmp_path / "run")


def test_a_lock_that_fails_otherwise_asks_for_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.lockf", refusing(errno.EIO))
    with pytest.raises(StorageError, match=r"cannot be locked .*; give another --out"):
        held(tmp_path / "run")


def refusing(number: int) -> Callable[..., None]:
    """Return what raises an error of the system."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse
