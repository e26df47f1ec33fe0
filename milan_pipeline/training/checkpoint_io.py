"""Load a checkpoint, and write checkpoints in a thread while training goes on.

A checkpoint has the weights, their average and the optimiser's state.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from milan_pipeline.cluster.world import like
from milan_pipeline.errors import DataError, reason_of
from milan_pipeline.training.checkpoints import (
    AVERAGE,
    MODEL,
    OPTIMISER,
    Snapshot,
    verify_checkpoint,
    write_checkpoint,
)
from milan_pipeline.training.optim import MovingAverage


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: MovingAverage | None = None,
) -> None:
    """Load weights and optimiser state, strictly, after checking the hashes.

    Every process reads whole tensors and keeps its part of each.

    Raises:
        DataError: the checkpoint is damaged, or belongs to another model.
    """
    verify_checkpoint(folder)
    try:
        _load_verified(folder, model, optimiser, average)
    except (DataError, torch.OutOfMemoryError):  # neither tells that the checkpoint is wrong
        raise
    except (OSError, RuntimeError, ValueError, TypeError, LookupError) as error:
        raise DataError(
            f"{folder} does not fit what is trained ({reason_of(error):.300}); give another --out"
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read one file of a checkpoint whose hashes were checked.

    Raises:
        DataError: the file has no tensors, although its hash is right.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} holds no tensors ({error}); delete its checkpoint") from error


def _load_verified(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: MovingAverage | None,
) -> None:
    weights, models = read_tensors(folder / MODEL), model.state_dict()
    fitting = {n: like(v, models[n]) if n in models else v for n, v in weights.items()}
    model.load_state_dict(fitting, strict=True)
    if average is not None:
        average.load_state_dict(read_tensors(folder / AVERAGE))
    tensors = read_tensors(folder / OPTIMISER)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state: dict[int, dict[str, Tensor]] = {}
    ordered = [p for group in optimiser.param_groups for p in group["params"]]
    for index, parameter in enumerate(ordered):
        prefix = f"{names[id(parameter)]}:"
        entries = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if entries:
            # Moments have their parameter's shape; the count of steps has none.
            # Cloned, since on a CPU they would stay mapped from a file that may be deleted.
            state[index] = {
                k: (like(v, parameter) if v.ndim else v).clone() for k, v in entries.items()
            }
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


class CheckpointWriter:
    """Writes at most one checkpoint at a time; leaving the block waits for it.

    An error of the thread is raised by the next call, or on leaving the block.

    Args:
        run: the run folder.
        keep: checkpoints to keep.
        write: the function that writes a checkpoint.
    """

    def __init__(
        self,
        run: Path,
        *,
        keep: int,
        write: Callable[..., object] = write_checkpoint,
    ) -> None:
        self._run = run
        self._keep = keep
        self._write = write
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: Future[object] | None = None

    def save(self, step: int, snapshot: Snapshot) -> None:
        """Begin to write a snapshot, when the previous one is written.

        Raises:
            StorageError: the previous one could not be written.
        """
        self.wait()
        self._pending = self._thread.submit(self._write, self._run, step, snapshot, keep=self._keep)

    def wait(self) -> None:
        """Return when the latest checkpoint is on the disk.

        Raises:
            StorageError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)
        if error is None:  # an error of the block itself tells more than one of the thread
            self.wait()
