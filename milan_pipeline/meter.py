"""What is measured of each training step: loss, learning rate, speed, and waiting for data."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from milan_pipeline.checkpoints import newest_checkpoint
from milan_pipeline.errors import DataError
from milan_pipeline.examples import Batch
from milan_pipeline.order import StepClock

NAMED_KEYS = 8


class _Pending(NamedTuple):
    """A step whose loss is perhaps still being computed."""

    step: int
    loss: torch.Tensor
    rate: float
    waited: float
    keys: list[str]


class Meter:
    """Collect what is logged of each step and the time spent waiting for data."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._pending: list[_Pending] = []
        self._started = self._last = time.monotonic()
        self._waited = self._waited_in_all = 0.0
        self._steps = 0

    def waiting(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Pass batches on, timing how long each took to come."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self._waited = time.monotonic() - asked
            self._waited_in_all += self._waited
            if batch is None:
                return
            yield batch

    def add(self, step: int, loss: torch.Tensor, rate: float, keys: list[str]) -> None:
        """Note a step without waiting for the device."""
        self._pending.append(_Pending(step, loss, rate, self._waited, keys))
        self._steps += 1

    def rows(self, clock: StepClock, run: Path) -> Iterator[dict[str, Any]]:
        """Yield the log rows of the steps since the last call.

        Raises:
            DataError: a loss is not finite.
        """
        pending, self._pending = self._pending, []
        losses = [float(row.loss) for row in pending]
        now = time.monotonic()
        seconds, self._last = (now - self._last) / max(1, len(pending)), now
        for loss, row in zip(losses, pending, strict=True):
            _require_finite(loss, row, run)
            yield {
                "step": row.step,
                "epoch": clock.fractional_epoch(row.step - 1),
                "loss": loss,
                "lr": row.rate,
                "images_per_second": self._batch / seconds,
                "data_wait_seconds": row.waited,
            }

    def summary(self) -> dict[str, Any]:
        """Return the totals of this process's part of the run."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        return {
            "images_done_now": self._steps * self._batch,
            "images_per_second": round(self._steps * self._batch / seconds, 1),
            "data_wait_share": round(self._waited_in_all / seconds, 4),
        }


def _require_finite(loss: float, row: _Pending, run: Path) -> None:
    if math.isfinite(loss):
        return
    keys = ", ".join(row.keys[:NAMED_KEYS]) + (", …" if len(row.keys) > NAMED_KEYS else "")
    good = newest_checkpoint(run)
    raise DataError(
        f"the loss of step {row.step} is {loss} (samples {keys}); the last good checkpoint is "
        f"{good[1] if good else 'none'}; start another --out with a lower --base-lr"
    )
