"""The death of a loader process is told in one sentence, wherever torch raises it."""

import re

import pytest
import torch
from torch import nn

from milan_pipeline.core.loader_deaths import READING, explained_worker_deaths
from milan_pipeline.errors import StorageError


@pytest.mark.parametrize(
    "torchs",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
        ConnectionResetError("reset by peer"),
        EOFError("no more data"),
    ],
)
def test_a_workers_death_is_explained(torchs):
    """Real ones, whose time and place torch leaves to chance, are tried in faults/test_stops.py."""
    with (
        pytest.raises(
            StorageError, match=rf"a loader process died \({re.escape(str(torchs).strip())}\), .*"
        ),
        explained_worker_deaths(READING),
    ):
        raise torchs


def test_other_errors_are_not_taken_for_a_workers_death():
    with pytest.raises(RuntimeError, match="shapes"), explained_worker_deaths():
        nn.Linear(2, 2)(torch.zeros(1, 3))


@pytest.mark.parametrize("kind", [RuntimeError, EOFError, ConnectionResetError])
def test_an_error_that_a_living_process_sends_on_is_not_taken_for_its_death(kind):
    sent = f"Caught {kind.__name__} in DataLoader worker process 0.\nOriginal Traceback ..."
    with pytest.raises(kind, match="Original"), explained_worker_deaths(READING):
        raise kind(sent)


@pytest.mark.parametrize("kind", [EOFError, ConnectionResetError])
def test_outside_of_training_a_failed_read_is_not_taken_for_a_death(kind):
    with pytest.raises(kind, match="of a store"), explained_worker_deaths():
        raise kind("of a store")


def test_a_death_that_torch_raises_while_a_failed_read_is_handled_is_explained():
    """Its signal may arrive after the read has failed, so that only the outer block sees it."""
    killed = "DataLoader worker (pid 7) is killed by signal: Killed. "

    def handle() -> None:
        try:
            raise ConnectionResetError("reset by peer")
        except ConnectionError:
            raise RuntimeError(killed)  # noqa: B904 - as a signal handler does

    with pytest.raises(StorageError, match="a loader process died"), explained_worker_deaths():
        handle()


def test_a_page_without_room_is_explained():
    killed = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ..."
    with (
        pytest.raises(StorageError, match=r"is full; give --workers 0, or more"),
        explained_worker_deaths(),
    ):
        raise RuntimeError(killed)
