"""Measure each training step: loss, rate, speed, waiting for data, memory."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from milan_pipeline.cluster.world import World
from milan_pipeline.core.counting import counted
from milan_pipeline.core.devices import peak_memory
from milan_pipeline.data.batching import BatchT
from milan_pipeline.data.order import StepClock
from milan_pipeline.errors import DataError

NAMED_KEYS = 8


class PartedLoss(NamedTuple):
    """A loss that is made of several, each of which the log tells by its name."""

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor]


Losses = dict[str, torch.Tensor]
"""A loss by the names of the log: `loss` is what is trained, `loss/NAME` a part of it."""


def named(loss: torch.Tensor | PartedLoss) -> Losses:
    """Return a loss, and any parts of it, by the names of the log."""
    if isinstance(loss, torch.Tensor):
        return {"loss": loss}
    return {"loss": loss.total} | {f"loss/{name}": part for name, part in loss.parts.items()}


def trained(loss: Callable[[], torch.Tensor | PartedLoss]) -> Callable[[], torch.Tensor]:
    """Return a function that computes the part of a loss that is trained."""
    return lambda: named(loss())["loss"]


class _Pending(NamedTuple):
    """A step whose losses may still be in computation."""

    step: int
    losses: Losses
    grad_norm: torch.Tensor | None
    rate: float
    waited: float
    keys: list[str]


class Meter:
    """Collect the rows of the log, and the time spent waiting for data.

    Args:
        batch: pairs in a global batch.
        world: the processes that share it.
    """

    def __init__(self, batch: int, world: World) -> None:
        self._batch = batch
        self._world = world
        self._pending: list[_Pending] = []
        self._started = self._last = time.monotonic()
        self._waited = self._waited_in_all = 0.0
        self._steps = 0

    def waiting(self, batches: Iterator[BatchT]) -> Iterator[BatchT]:
        """Pass batches on, and measure how long each one was waited for."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self._waited = time.monotonic() - asked
            self._waited_in_all += self._waited
            if batch is None:
                return
            yield batch

    def add(
        self,
        step: int,
        losses: Losses,
        grad_norm: torch.Tensor | None,
        rate: float,
        keys: list[str],
    ) -> None:
        """Note a step without waiting for the device."""
        self._pending.append(_Pending(step, losses, grad_norm, rate, self._waited, keys))
        self._steps += 1

    def rows(self, clock: StepClock, last_good: Callable[[], str]) -> Iterator[dict[str, Any]]:
        """Yield the log rows of the steps since the last call; every process must ask for them.

        Args:
            clock: tells the epoch of a step.
            last_good: names the last good checkpoint.

        Raises:
            DataError: a loss or a norm of gradients is not finite.
        """
        pending, self._pending = self._pending, []
        memory = peak_memory(pending[0].losses["loss"].device) if pending else {}
        # Two looks at the device and one exchange, however many steps there are.
        every = [value for row in pending for value in row.losses.values()]
        local = torch.stack(every).double().cpu()
        means = iter(self._world.mean(local.clone()).tolist())
        own = iter(local.tolist())
        own_norms = [row.grad_norm for row in pending if row.grad_norm is not None]
        norms = iter(torch.stack(own_norms).tolist() if own_norms else ())
        now = time.monotonic()
        seconds, self._last = (now - self._last) / max(1, len(pending)), now
        for row in pending:
            losses = {name: next(means) for name in row.losses}
            own_losses = {name: next(own) for name in row.losses}
            loss, own_loss = losses["loss"], own_losses["loss"]
            if not math.isfinite(loss):
                self._refuse(f"the loss of step {row.step} is {loss}", own_loss, row, last_good)
            norm = {} if row.grad_norm is None else {"grad_norm": next(norms)}
            for value in norm.values():  # of all processes together, hence the same in each
                if not math.isfinite(value):
                    what = f"the gradient norm of step {row.step} is {value}"
                    self._refuse(what, value, row, last_good)
            yield {
                "step": row.step,
                "epoch": clock.fractional_epoch(row.step - 1),
                **losses,
                **norm,
                "lr": row.rate,
                "images_per_second": self._batch / seconds,
                "data_wait_seconds": row.waited,
                **memory,
            }

    def _refuse(self, what: str, own: float, row: _Pending, last_good: Callable[[], str]) -> None:
        """Name the samples of the processes whose own value is not finite, in all alike."""
        parts = self._world.gather((math.isfinite(own), row.keys))
        keys = [key for finite, part in parts if not finite for key in part]
        named = ", ".join(keys[:NAMED_KEYS]) + (", …" if len(keys) > NAMED_KEYS else "")
        raise DataError(
            f"{what} (samples {named}); the last good checkpoint is {last_good()}; start another "
            "--out with a lower --base-lr"
        )

    def summary(self) -> dict[str, Any]:
        """Return the totals of this part of the run; of waiting, that of who waited most."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        return {
            "images_done_now": self._steps * self._batch,
            "images_per_second": round(self._steps * self._batch / seconds, 1),
            "data_wait_share": round(self._world.most(self._waited_in_all / seconds), 4),
        }


def in_words(counts: Mapping[str, Any]) -> str:
    """Say what `Trainer.train` counted."""
    return (
        f"{counted(counts['steps'], 'steps')}, {counts['steps_done_now']} of them now; "
        f"{counts['images_per_second']} images/s; "
        f"{100 * counts['data_wait_share']:.1f}% of the time waiting for data"
    )
