"""The processes that train one student together, as `torchrun` starts them: who, and agreements.

Large tensors travel inside the model's wrapper (`replicas.py`); what is agreed on here is small
and stays on the CPU (gloo), so that no agreement waits for a GPU.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from milan_pipeline.errors import ConfigError, MilanError, StorageError
from milan_pipeline.launcher import is_launched


@dataclasses.dataclass(frozen=True)
class World:
    """Which process this is, and of how many; alone, every agreement is with itself.

    Attributes:
        rank: of this process, from 0.
        size: how many processes share the lanes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def most(self, value: float) -> float:
        """Return the largest of all processes' values (exact below 2^53)."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return float(shared)

    def total(self, values_n: torch.Tensor) -> torch.Tensor:
        """Return the sum over processes of a float64 (n,) tensor on the CPU."""
        if self.size > 1:
            dist.all_reduce(values_n)
        return values_n

    def mean(self, values_n: torch.Tensor) -> torch.Tensor:
        """Return the mean over processes of a float64 (n,) tensor on the CPU."""
        return self.total(values_n) / self.size

    def gather(self, value: Any) -> list[Any]:
        """Return all processes' values, by rank; for rare and small ones: they are pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait_for_all(self) -> None:
        """Return when every process has come here."""
        self.most(0)


def local_device(device: torch.device) -> torch.device:
    """Return this process's own GPU of a machine, by LOCAL_RANK; other devices stay as they are.

    Raises:
        ConfigError: there are more processes than GPUs.
    """
    if device.type != "cuda" or device.index is not None or not is_launched():
        return device
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= count:
        raise ConfigError(
            f"process {index} of this machine has no GPU, since it has {count}; give torchrun "
            f"--nproc-per-node {count}"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextlib.contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """Join the other processes of the run inside the block; without torchrun there are none.

    Raises:
        StorageError: another process ended while this one waited for it.
    """
    if not is_launched():
        yield World()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        with _explained_deaths():
            yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _explained_deaths() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, dist.DistError) or "gloo/" in str(error)
        if isinstance(error, MilanError) or not lost:
            raise
        raise StorageError(
            "another process of the run ended or cannot be reached; its own message says why; run "
            "the same command again to go on"
        ) from error
