"""Checkpoints: `checkpoints/step-%08d/`, whole or not at all, without pickle."""

import contextlib
import hashlib
import json
import shutil
import uuid
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn

from milan_pipeline import storage
from milan_pipeline.errors import DataError

MODEL, OPTIMISER, HASHES = "student.safetensors", "optimiser.safetensors", "sha256.json"


def save_checkpoint(
    run: Path, step: int, model: nn.Module, optimiser: torch.optim.Optimizer, *, keep: int
) -> Path:
    """Write a checkpoint under a temporary name, rename it, and drop all but the newest `keep`.

    Those of later steps are dropped too: training went past them once, so they were torn.

    Args:
        run: the run folder.
        step: steps that the weights have seen.
        model: its whole state is saved.
        optimiser: its state is saved by parameter name.
        keep: checkpoints to keep.

    Raises:
        StorageError: the place cannot be written, or it is full.
    """
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".step-*.tmp"):
        shutil.rmtree(leftover)
    temporary = folder / f".step-{step:08d}.{uuid.uuid4().hex}.tmp"
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    hashes = {}
    for name, tensors in ((MODEL, weights), (OPTIMISER, _optimiser_tensors(model, optimiser))):
        data = save(tensors)
        storage.put_bytes(str(temporary / name), data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    storage.put_bytes(str(temporary / HASHES), (json.dumps(hashes, indent=1) + "\n").encode())
    place = folder / f"step-{step:08d}"
    if place.exists():
        shutil.rmtree(place)
    temporary.rename(place)
    steps = _by_step(run)
    kept = [other for other in steps if other <= step][-keep:]
    for other in steps.keys() - kept:
        shutil.rmtree(steps[other])
    return place


def newest_checkpoint(run: Path) -> tuple[int, Path] | None:
    """Return (step, folder) of the newest whole checkpoint; torn ones are passed over."""
    for step, folder in reversed(_by_step(run).items()):
        with contextlib.suppress(DataError):
            verify_checkpoint(folder)
            return step, folder
    return None


def verify_checkpoint(folder: Path) -> None:
    """Check every file of a checkpoint against its hash.

    Raises:
        DataError: a file is missing or damaged.
    """
    try:
        hashes: dict[str, str] = json.loads((folder / HASHES).read_text())
        bad = [name for name in (MODEL, OPTIMISER) if _sha256(folder / name) != hashes[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is torn ({error}); delete it to go on from the last") from error
    if bad:
        raise DataError(f"{folder / bad[0]} is damaged; delete the checkpoint to go on without it")


def load_checkpoint(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Load weights and optimiser state, strictly, after checking the hashes.

    Raises:
        DataError: the checkpoint is damaged.
    """
    verify_checkpoint(folder)
    model.load_state_dict(load_file(folder / MODEL), strict=True)
    tensors = load_file(folder / OPTIMISER)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    state: dict[int, dict[str, torch.Tensor]] = {}
    ordered = [p for group in optimiser.param_groups for p in group["params"]]
    for index, parameter in enumerate(ordered):
        prefix = f"{names[id(parameter)]}:"
        entries = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if entries:
            state[index] = entries
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _optimiser_tensors(
    model: nn.Module, optimiser: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    return {
        f"{name}:{field}": value.contiguous()
        for name, parameter in model.named_parameters()
        for field, value in optimiser.state.get(parameter, {}).items()
    }


def _by_step(run: Path) -> dict[int, Path]:
    folders = (run / "checkpoints").glob("step-*")
    found = {int(folder.name[5:]): folder for folder in folders if folder.name[5:].isdigit()}
    return dict(sorted(found.items()))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
