"""A run folder is one process's, and tells how far its run has come."""

import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from milan_pipeline.cluster.world import World
from milan_pipeline.errors import StorageError
from milan_pipeline.provenance.run_state import trained_steps, write_state
from milan_pipeline.training.run_folder import RunFolder, run_lock

FORK = multiprocessing.get_context("fork")


def held(run: Path) -> None:
    with run_lock(run):
        pass


def test_a_file_in_the_place_of_checkpoints_is_named_before_the_first_step(tmp_path):
    (tmp_path / "checkpoints").write_text("x")
    opened = RunFolder(tmp_path, World()).opened(0, 5, keep=1)
    with (
        pytest.raises(StorageError, match=r"checkpoints cannot be written .* of another kind"),
        opened,
    ):
        pass


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
