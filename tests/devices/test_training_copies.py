"""What a training step does beside the loss: batches arrive ahead, and nothing is read back."""

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from milan_pipeline.cluster.world import World
from milan_pipeline.core.device_copies import DeviceCopies, on_device
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import OrderConfig, StepClock
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.stages.shared.training import train_as_planned
from milan_pipeline.stages.shared.training_options import Process, TrainingOptions
from milan_pipeline.training.optim import (
    MovingAverage,
    clip_gradients,
    make_optimiser,
    set_learning_rate,
)
from milan_pipeline.training.trainer import Trainer, TrainingConfig
from tests.support.fake_gpu import GPU, Copy, PinnedAsked, fake_gpu


class Pair(NamedTuple):
    """A batch of two tensors."""

    pixels: torch.Tensor
    labels: torch.Tensor
    keys: list[str]


def pair(*, pinned: bool) -> Pair:
    pixels = torch.empty(4, 3, 8, dtype=torch.uint8, pin_memory=pinned)
    return Pair(pixels, torch.empty(4, dtype=torch.int64, pin_memory=pinned), ["a"])


def test_a_batch_is_two_copies_that_nothing_waits_for() -> None:
    with fake_gpu() as copies:
        (batch,) = on_device([pair(pinned=True)], DeviceCopies(GPU))
        assert (batch.pixels.device, batch.labels.device, batch.keys) == (GPU, GPU, ["a"])
        assert copies.made == [Copy("cuda", 96, waits=False), Copy("cuda", 32, waits=False)]


def test_a_batch_in_ordinary_memory_is_waited_for() -> None:
    with fake_gpu() as copies:
        list(on_device([pair(pinned=False)], DeviceCopies(GPU)))
        assert [copy.waits for copy in copies.made] == [True, True]


def test_a_batch_is_copied_before_the_one_before_it_is_computed() -> None:
    with fake_gpu() as copies:
        batches = on_device((pair(pinned=True) for _ in range(3)), DeviceCopies(GPU))
        next(batches)
        assert len(copies.made) == 4


def test_results_are_copied_to_the_host_without_a_wait() -> None:
    with fake_gpu() as copies:
        DeviceCopies(GPU).to_host([torch.zeros(5, device=GPU)])
        assert copies.made == [Copy("cpu", 20, waits=False)]


def test_a_step_of_the_optimiser_copies_nothing() -> None:
    model = nn.Linear(3, 4)
    with fake_gpu() as copies:
        model.to(GPU)
        optimiser = make_optimiser(model, weight_decay=0.1)
        average = MovingAverage(model, 0.9)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        copies.made.clear()
        for step in (1, 2):
            set_learning_rate(optimiser, 0.1)
            assert clip_gradients(model, 1.0).device == GPU
            optimiser.step()
            average.update(step)
        assert copies.made == []


class FirstLossError(Exception):
    """Ends a training: backward passes do not run on a fake GPU."""


class Linear:
    """A task whose first loss notes where its batch is, and ends."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.places: list[torch.device] = []

    def optimiser(self) -> torch.optim.Optimizer:
        return make_optimiser(self.model, weight_decay=0.1)

    def rate(self, epoch: float) -> float:
        return epoch

    def loss(self, replica: nn.Module, data: Pair, part: slice, step: int) -> torch.Tensor:
        del replica, part, step
        self.places += [data.pixels.device, data.labels.device]
        raise FirstLossError


def test_the_loop_gives_the_loss_what_is_on_the_gpu(tmp_path: Path) -> None:
    config = TrainingConfig(
        batch=4, micro_batch=4, total_steps=4, checkpoint_every=4, keep=1, log_every=4
    )
    model = nn.Linear(3, 4)

    def pairs(steps: range) -> Generator[Pair, None, None]:
        for _ in steps:
            yield pair(pinned=True)

    with fake_gpu() as copies:
        task = Linear(model.to(GPU))
        trainer = Trainer(tmp_path / "run", task, config, StepClock((4,)))
        copies.made.clear()
        with pytest.raises(FirstLossError):
            trainer.train(pairs, StopRequest())
        assert task.places == [GPU, GPU]
        assert [copy.waits for copy in copies.made] == [False] * 4  # of this step and of the next


class Rows:
    """Samples that are their numbers; a `SampleTable`."""

    cycle = 1

    def counts(self, view: int) -> Any:
        del view
        return torch.tensor([8]).numpy()

    def read(self, places: Iterable[Any], cache: object = None) -> Generator[dict[str, Any]]:
        del cache
        for place in places:
            yield {"row": place.row}


def numbered(samples: Iterable[dict[str, Any]]) -> Iterator[Pair]:
    for sample in samples:
        row = torch.tensor([sample["row"]])
        yield Pair(row, row, [str(sample["row"])])


def test_a_stage_joins_batches_for_a_gpu_in_page_locked_memory(tmp_path: Path) -> None:
    joined: list[int] = []

    def train(
        batches_from: Callable[[range], Iterator[Pair]], *_: Any, **__: Any
    ) -> dict[str, Any]:
        with PinnedAsked() as asked:
            joined.append(len(next(batches_from(range(1))).keys))
        joined.append(asked.bytes)
        return {
            "steps": 1, "steps_done_now": 1, "images_per_second": 1.0, "data_wait_share": 0.0
        }  # fmt: skip

    config = TrainingOptions(out=str(tmp_path), workers=0)
    planned: Any = SimpleNamespace(
        config=config,
        schedule_steps=1,
        left_out=0,
        train=Rows(),
        order=OrderConfig(seed=0, batch=4, lanes=1, block=4),
        record=StageRecord(
            url=str(tmp_path / "config.json"), stage="pretrain", config=config, inputs={}
        ),
    )
    trainer: Any = SimpleNamespace(
        run=tmp_path, world=World(), ledger=None, rate=lambda _: 1.0, train=train
    )
    process = Process(
        device=torch.device("cuda"), world=World(), stop=StopRequest(), prepared=lambda: None
    )
    train_as_planned(planned, process, trainer, numbered, finish=lambda counts: counts)
    assert joined == [4, 2 * 4 * 8]
