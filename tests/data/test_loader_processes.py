"""What befalls a loader process is told in one sentence; training never waits for ever."""

import re

import pytest
import torch
from torch import nn

from milan_pipeline.data.loader_processes import explained_start, explained_worker_deaths, next_part
from milan_pipeline.errors import StorageError
from tests.support.pairs import open_data, stream

# torch advises against more loader processes than cores; here they are few samples' worth.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


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
        explained_worker_deaths(),
    ):
        raise torchs


def test_other_errors_are_not_taken_for_a_workers_death():
    with pytest.raises(RuntimeError, match="shapes"), explained_worker_deaths():
        nn.Linear(2, 2)(torch.zeros(1, 3))


@pytest.mark.parametrize("kind", [RuntimeError, EOFError, ConnectionResetError])
def test_an_error_that_a_living_process_sends_on_is_not_taken_for_its_death(kind):
    sent = f"Caught {kind.__name__} in DataLoader worker process 0.\nOriginal Traceback ..."
    with pytest.raises(kind, match="Original"), explained_worker_deaths():
        raise kind(sent)


def test_a_batch_that_has_no_room_in_shared_memory_ends_the_run(
    image_shards, target_shards, monkeypatch
):
    """Torch's own message, where the system has no room; test_shared_memory.py has a real one."""
    full = "unable to write to file </torch_7_1_0>: No space left on device (28)"

    def share_memory_(_: torch.Tensor) -> None:
        raise RuntimeError(full)

    monkeypatch.setattr(torch.Tensor, "share_memory_", share_memory_)
    data = open_data(image_shards, target_shards)
    with pytest.raises(
        StorageError,
        match=rf"finds no room in /dev/shm for \d+ bytes .*{re.escape(full)}.*give --workers 0",
    ):
        list(stream(data, range(4), workers=2))


def test_without_loader_processes_nothing_is_shared(image_shards, target_shards, monkeypatch):
    monkeypatch.delattr(torch.Tensor, "share_memory_")
    assert list(stream(open_data(image_shards, target_shards), range(2)))


def test_a_page_without_room_is_explained():
    killed = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ..."
    with (
        pytest.raises(StorageError, match=r"is full; give --workers 0, or more"),
        explained_worker_deaths(),
    ):
        raise RuntimeError(killed)


def test_loader_processes_that_cannot_be_started_are_explained():
    said = r"\[Errno 28\] .* is full; give --workers 0"
    with pytest.raises(StorageError, match=said), explained_start():
        raise OSError(28, "No space left on device")
    with pytest.raises(PermissionError), explained_start():
        raise PermissionError(13, "Permission denied")


def test_a_loader_that_ends_early_is_an_error_inside_a_loop_too():
    with pytest.raises(RuntimeError, match="before the steps did"):
        list(map(next_part, [iter(())]))
