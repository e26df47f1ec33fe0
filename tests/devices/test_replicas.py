"""How processes share a model on GPUs, and how the log reads numbers off one."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils._python_dispatch import TorchDispatchMode

from milan_pipeline.cluster.world import World, replicate
from milan_pipeline.data.order import StepClock
from milan_pipeline.training.meter import Meter


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of this process."""
    dist.init_process_group(
        "gloo", store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_a_model_on_the_cpu_is_sharded_there_also_where_there_are_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a mesh, torch would take the machine's GPUs."""
    meshes: list[Any] = []

    def noting(module: nn.Module, *, mesh: Any = None) -> Any:
        meshes.append(mesh)
        return fully_shard(module, mesh=mesh)

    monkeypatch.setattr("milan_pipeline.cluster.world.fully_shard", noting)
    replicate(nn.Sequential(nn.Linear(3, 4)), World(), fsdp=True)
    assert [mesh and mesh.device_type for mesh in meshes] == ["cpu"]


@pytest.mark.usefixtures("alone")
def test_gradients_are_exchanged_where_they_lie() -> None:
    """Each step would copy all of them otherwise."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    replica = replicate(model, World(0, 2), fsdp=False)
    replica(torch.ones(1, 3)).sum().backward()
    grads = [parameter.grad for parameter in model.parameters()]
    storages = {grad.untyped_storage().data_ptr() for grad in grads if grad is not None}
    assert len(storages) == 1


class ReadBacks(TorchDispatchMode):
    """Counts the numbers that are read one by one."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_the_log_reads_no_number_by_itself() -> None:
    meter = Meter(4, World())
    for step in range(1, 6):
        meter.add(step, {"loss": torch.tensor(0.5)}, torch.tensor(2.0), 0.1, ["a"])
    with ReadBacks() as read:
        rows = list(meter.rows(StepClock((8,)), lambda: "none"))
    assert [(row["loss"], row["grad_norm"]) for row in rows] == [(0.5, 2.0)] * 5
    assert read.count == 0
