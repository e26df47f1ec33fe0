"""A run's log holds each step once, whatever is resumed or fails."""

import json
import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from milan_pipeline.errors import StorageError
from milan_pipeline.training.run_log import EVENT_THREADS, RunLog


def write(run, steps, *, resume_step, loss=0.0):
    with RunLog(run, resume_step=resume_step) as log:
        log.write({"step": step, "loss": loss + step} for step in steps)


def logged(run):
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


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
    with RunLog(tmp_path, resume_step=0) as log:
        log.write([{"step": 1, "loss": 2.0}])
        assert logged(tmp_path) == [(1, 2.0)]


def test_what_precedes_an_error_is_logged(tmp_path):
    def rows():
        yield {"step": 1, "loss": 2.0}
        raise ValueError("step 2 is not finite")

    with (
        pytest.raises(ValueError, match="step 2"),
        RunLog(tmp_path, resume_step=0) as log,
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


def test_a_log_on_a_full_disk_says_so(tmp_path: Path) -> None:
    log = RunLog(tmp_path, resume_step=0)
    log._stream.close()
    log._stream = Path("/dev/full").open("w")  # noqa: SIM115 - is closed by the log
    full = r"log.jsonl cannot be written \(No space left"
    with pytest.raises(StorageError, match=full):
        log.write([{"step": 1}])
    with pytest.raises(StorageError, match=full):
        log.__exit__(None, None, None)
    assert log._stream.closed


def test_only_a_disks_errors_are_blamed_on_the_disk(tmp_path: Path) -> None:
    """The death of a loader process is told by whichever line runs then."""
    with (
        pytest.raises(TypeError, match="not JSON serializable"),
        RunLog(tmp_path, resume_step=0) as log,
    ):
        log.write([{"step": 1, "loss": object()}])


def test_a_disks_error_under_the_events_prints_no_traceback(tmp_path: Path) -> None:
    """The next write raises it. Unseen errors of threads are failures here, see pyproject.toml."""

    class Writer(threading.Thread):
        __module__ = EVENT_THREADS

        def run(self) -> None:
            raise OSError(28, "No space left on device")

    with RunLog(tmp_path, resume_step=0):
        pass
    thread = Writer()
    thread.start()
    thread.join()
