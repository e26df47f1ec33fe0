"""The processes that train one student together, as `torchrun` starts them.

Values that they agree on are small and stay on the CPU (gloo), so that none waits for a GPU. The
model is copied whole into each process (DDP) or sharded over them (FSDP2). Checkpoints hold whole
tensors either way, so a run may go on with another number of processes.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from milan_pipeline.cluster.launch import is_launched, require_meeting_place, variable
from milan_pipeline.errors import ConfigError, MilanError, StorageError

ResultT = TypeVar("ResultT")

TORCHRUN = "TORCHELASTIC_RUN_ID"
"""A variable that torchrun alone sets."""


@dataclasses.dataclass(frozen=True)
class World:
    """Which process this is, and of how many; a single process agrees with itself.

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
        """Return all processes' values, by rank; rarely and only small ones: they are pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait_for_all(self) -> None:
        """Return when every process has called this."""
        self.most(0)

    def of_first(self, make: Callable[[], ResultT]) -> ResultT:
        """Have the first process make a value; the others receive it, pickled."""
        values: list[Any] = [make() if self.leads else None]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return cast(ResultT, values[0])


def local_device(device: torch.device) -> torch.device:
    """Return this process's own GPU of a machine, by LOCAL_RANK; other devices stay as they are.

    Schedulers may show each process one GPU alone, which then is its own. What names no GPU, such
    as page-locking memory in a thread, uses the process's own from then on, and not the first.

    Raises:
        ConfigError: there are more processes than GPUs.
    """
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    if device.type != "cuda" or device.index is not None or not is_launched():
        return device
    index, count = variable("LOCAL_RANK", least=0) or 0, torch.cuda.device_count()
    # torchrun shows all its processes the same GPUs.
    if count == 1 and "CUDA_VISIBLE_DEVICES" in os.environ and TORCHRUN not in os.environ:
        index = 0
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
        ConfigError: its variables do not say where the processes meet, or the port is in use.
        StorageError: another process ended while this one waited for it, or cannot be reached.
    """
    if not is_launched():
        yield World()
        return
    require_meeting_place()
    with _explained_meeting():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        with _explained_deaths():
            yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _explained_meeting() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if isinstance(error, MilanError):
            raise
        reason = " ".join(str(error).split())
        place = f"MASTER_ADDR {os.environ['MASTER_ADDR']}, MASTER_PORT {os.environ['MASTER_PORT']}"
        if "EADDRINUSE" in str(error):
            raise ConfigError(
                f"the port of {place} is in use on this machine; end what listens there, or give "
                "another port, as torchrun --master-port does"
            ) from error
        raise StorageError(
            f"the processes cannot meet at {place} ({reason:.200}); check that all "
            f"{os.environ['WORLD_SIZE']} of WORLD_SIZE were started and reach that machine"
        ) from error


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


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the transformer blocks, in the order of their stacks: units of sharding, compiling.

    A stack is what timm and the decoders alike call `blocks`.
    """
    stacks = (part for name, part in model.named_modules() if name.split(".")[-1] == "blocks")
    return [block for stack in stacks for block in stack.children()]


def require_processes(*, fsdp: bool, started: bool) -> None:
    """Refuse to shard in a process that is not one of several.

    Raises:
        ConfigError: sharding was asked for without processes to shard over.
    """
    if fsdp and not started:
        raise ConfigError(
            "--fsdp shards over processes, and there is one; start it with torchrun or give "
            "--processes"
        )


def replicate(model: nn.Module, world: World, *, fsdp: bool) -> nn.Module:
    """Return the module to call in training; its gradients are means over all processes.

    Args:
        model: on its device; with `fsdp`, its parameters become sharded tensors in place.
        world: the processes.
        fsdp: shard weights, gradients and optimiser state instead of copying them
            (`torch.distributed.fsdp.fully_shard`, after ZeRO, arXiv 1910.02054).

    Raises:
        ConfigError: sharding was asked for without processes to shard over.
    """
    require_processes(fsdp=fsdp, started=dist.is_initialized())
    if fsdp:
        # No mixed-precision policy: autocast alone decides what is computed in which type, so that
        # shards and copies give the same numbers.
        # Without a mesh, torch would take the machine's GPUs also for a model on the CPU.
        mesh = init_device_mesh(next(model.parameters()).device.type, (world.size,))
        for block in blocks_of(model):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model
    if world.size == 1:
        return model
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def settle(replica: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Have DDP assign gradients to buckets once and for all, by a backward pass without effect.

    DDP assigns them anew after its first backward pass, in the order in which they came. That
    changes the order of additions, and so the last bits: from the second step of a run, but from
    another step of a run that resumes from a checkpoint.

    Args:
        replica: from `replicate`; its buffers (BatchNorm's statistics) stay as they were.
        loss: computes a loss as in training.
    """
    if isinstance(replica, DistributedDataParallel):
        before = [buffer.clone() for buffer in replica.buffers()]
        loss().backward()  # type: ignore[no-untyped-call]
        replica.zero_grad(set_to_none=True)
        for buffer, value in zip(replica.buffers(), before, strict=True):
            buffer.copy_(value)


def share_buffers(model: nn.Module, world: World) -> None:
    """Give every process the buffers of the first, as DDP does before each step.

    Their own differ, by the images that each has processed (BatchNorm's statistics).
    """
    if world.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


@contextlib.contextmanager
def accumulating(replica: nn.Module, *, last: bool) -> Iterator[None]:
    """Run one micro batch; DDP exchanges gradients only in the last one of a step.

    FSDP does so in each, since it has no room for whole gradients.
    """
    if last or not isinstance(replica, DistributedDataParallel):
        yield
        return
    with replica.no_sync():
        yield


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as it would be without sharding; every process must call this."""
    full: Any = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return cast("Tensor", full)


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """Return this process's form of a whole tensor: sharded and placed as `model` is."""
    if not isinstance(model, DTensor):
        return tensor
    tensor = tensor.to(model.device)
    return distribute_tensor(tensor, model.device_mesh, model.placements, src_data_rank=None)


def own_part(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds, sharing its memory."""
    local: Any = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return cast("Tensor", local.detach())
