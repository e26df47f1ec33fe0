"""Load a checkpoint into what is trained: weights, their average and the optimiser's state."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from milan_pipeline.checkpoints import AVERAGE, MODEL, OPTIMISER, verify_checkpoint
from milan_pipeline.documents import MISSHAPEN
from milan_pipeline.ema import MovingAverage
from milan_pipeline.errors import DataError
from milan_pipeline.replicas import like


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: MovingAverage | None = None,
) -> None:
    """Load weights and optimiser state, strictly, after checking the hashes.

    Every process reads the whole tensors and keeps its part of them.

    Raises:
        DataError: the checkpoint is damaged, or one of another model.
    """
    verify_checkpoint(folder)
    try:
        _load_verified(folder, model, optimiser, average)
    except (DataError, torch.OutOfMemoryError):  # which says nothing of what fits
        raise
    except (OSError, RuntimeError, *MISSHAPEN) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{folder} does not fit what is trained ({reason:.300}); give another --out"
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read one file of a checkpoint whose hashes were checked.

    Raises:
        DataError: it is none, whatever its hash says.
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
            # Cloned, or on a CPU they would stay mapped from a file that is deleted one day.
            state[index] = {
                k: (like(v, parameter) if v.ndim else v).clone() for k, v in entries.items()
            }
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
