"""What a training step does beside the loss: batches arrive ahead, and nothing is read back."""

from typing import NamedTuple

import torch
from torch import nn

from milan_pipeline.core.device_copies import DeviceCopies, on_device
from milan_pipeline.training.optim import (
    MovingAverage,
    clip_gradients,
    make_optimiser,
    set_learning_rate,
)
from tests.support.fake_gpu import GPU, Copy, fake_gpu


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
