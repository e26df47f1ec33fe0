"""What befalls a loader process is told in one sentence; training never waits for ever."""

import re
import subprocess
import sys

import pytest
import torch

from milan_pipeline.core.device_copies import tensors_of
from milan_pipeline.data import loader_processes
from milan_pipeline.data.loader_processes import Part, carry_errors, explained_start, next_part
from milan_pipeline.errors import StorageError
from milan_pipeline.pretraining.examples import Batch
from tests.support.pairs import open_data, stream

# torch advises against more loader processes than cores; here they are few samples' worth.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


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


def test_every_tensor_of_a_batch_is_shared_those_in_lists_too(monkeypatch):
    monkeypatch.setattr(loader_processes, "get_worker_info", lambda: "of a loader process")
    kept_BK, masked_BM, *others = (torch.ones(2, 3) for _ in range(6))
    batch = Batch(others[0], kept_BK, masked_BM, others[1:3], [others[3]], ["a", "b"])
    assert len(list(carry_errors(iter([Part(batch, [])])))) == 1
    assert [tensor.is_shared() for tensor in tensors_of(batch)] == [True] * 6


def test_without_loader_processes_nothing_is_shared(image_shards, target_shards, monkeypatch):
    monkeypatch.delattr(torch.Tensor, "share_memory_")
    assert list(stream(open_data(image_shards, target_shards), range(2)))


def test_loader_processes_that_cannot_be_started_are_explained():
    said = r"\[Errno 28\] .* is full; give --workers 0"
    with pytest.raises(StorageError, match=said), explained_start():
        raise OSError(28, "No space left on device")
    with pytest.raises(StorageError, match=r"give fewer --workers, .*ulimit -n"), explained_start():
        raise OSError(24, "Too many open files")
    with pytest.raises(PermissionError), explained_start():
        raise PermissionError(13, "Permission denied")


def test_a_loader_that_ends_early_is_an_error_inside_a_loop_too():
    with pytest.raises(RuntimeError, match="before the steps did"):
        list(map(next_part, [iter(())]))


LOADER = """
import multiprocessing, os, signal, subprocess, sys, time
from milan_pipeline.data.loader_processes import leave_stop_to_parent, start_fork_server

def kill(pid, name):
    subprocess.run(["kill", f"-{name}", str(pid)], check=True)  # as another process

def load(ready):
    leave_stop_to_parent(0)
    ready.send(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    start_fork_server()
    for end in ("terminate", "die"):
        here, there = multiprocessing.Pipe()
        loader = multiprocessing.Process(target=load, args=(there,))
        loader.start()
        pid = here.recv()
        for name in ("USR1", "TERM", "INT"):
            kill(pid, name)
            if sys.argv[1] == "forkserver":
                from multiprocessing import forkserver
                kill(forkserver._forkserver._forkserver_pid, name)
        loader.join(0.1)
        assert loader.is_alive(), "a signal of another process ended it"
        if end == "die":
            os._exit(0)
        loader.terminate()
        loader.join(60)
        assert loader.exitcode == 0, loader.exitcode
"""


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_a_loader_process_heeds_the_trainer_alone(tmp_path, method):
    """One is ended by it, another ends when it dies.

    A fork server, by which Python 3.14 starts processes, is not the trainer.
    """
    script = tmp_path / "loader.py"
    script.write_text(LOADER)
    words = [sys.executable, script, method]
    # Its output, which is read to its end, stays open as long as the loader lives.
    subprocess.run(words, check=True, capture_output=True, timeout=120)
