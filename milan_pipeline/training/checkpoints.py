"""Checkpoints in `checkpoints/step-%08d/`: written whole or not at all, without pickle."""

import contextlib
import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from milan_pipeline import storage
from milan_pipeline.cluster.world import whole
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.errors import (
    DataError,
    MismatchError,
    MissingDataError,
    StorageError,
    TruncatedError,
    reason_of,
)
from milan_pipeline.provenance.run_state import CONFIG_NAME, STATE_NAME, checkpoints_by_step
from milan_pipeline.training.optim import MovingAverage

logger = logging.getLogger(__name__)

MODEL, OPTIMISER, AVERAGE = "student.safetensors", "optimiser.safetensors", "ema.safetensors"
HASHES = "sha256.json"


class _Place(TypedDict):
    """Where a tensor lies within a safetensors file."""

    data_offsets: tuple[int, int]


Snapshot = dict[str, dict[str, Tensor]]  # by file name: whole tensors on the CPU, by name


def take_snapshot(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: MovingAverage | None = None,
    *,
    keeping: bool = True,
) -> Snapshot:
    """Copy the content of a checkpoint to the CPU; training may go on at once.

    Sharded tensors are put together, so every process must call this.

    Args:
        model: the model, whose whole state is copied.
        optimiser: the optimiser, whose state is copied by parameter name.
        average: of the model's weights, where there is one.
        keeping: whether this process needs the copy; if not, the result is empty.
    """
    states = {MODEL: model.state_dict(), OPTIMISER: _optimiser_tensors(model, optimiser)}
    if average is not None:
        states[AVERAGE] = average.state_dict()
    # A file without tensors is written too: before the first step the optimiser has no state.
    snapshot: Snapshot = {file: {} for file in states} if keeping else {}
    for file, tensors in states.items():
        for name, value in tensors.items():
            tensor = whole(value.detach())
            if keeping:
                snapshot[file][name] = tensor.to("cpu", copy=True).contiguous()
    return snapshot


def write_checkpoint(run: Path, step: int, snapshot: Snapshot, *, keep: int) -> Path:
    """Write a checkpoint under a temporary name, rename it, and drop all but the newest `keep`.

    Checkpoints of later steps are deleted too: training was resumed before them, so they were torn.
    Torn ones of earlier steps are deleted as well. If one cannot be deleted, a warning names it and
    training goes on.

    Args:
        run: the run folder.
        step: number of steps that the weights were trained for.
        snapshot: the content.
        keep: checkpoints to keep.

    Raises:
        StorageError: the disk cannot be written, or is full.
    """
    folder, place = run / "checkpoints", checkpoint_folder(run, step)
    temporary = folder / f".step-{step:08d}.{uuid.uuid4().hex}.tmp"
    with _named_errors(place):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".step-*.tmp"):
            shutil.rmtree(leftover)
        hashes = {}
        for name, tensors in snapshot.items():
            data = save(tensors)
            storage.put_bytes(str(temporary / name), data)
            hashes[name] = hashlib.sha256(data).hexdigest()
        storage.put_bytes(str(temporary / HASHES), (json.dumps(hashes, indent=1) + "\n").encode())
        if place.exists():
            shutil.rmtree(place)
        temporary.rename(place)
    logger.info("step %d: checkpoint in %s", step, place)
    prune_checkpoints(run, step, keep=keep)
    return place


def prune_checkpoints(run: Path, step: int, *, keep: int) -> None:
    """Delete all checkpoints but the newest `keep` up to a step, and those that cannot be read.

    Where one cannot be read or deleted, a warning names it.
    """
    try:
        steps = checkpoints_by_step(run)
    except StorageError as error:
        logger.warning("old checkpoints are kept: %s", error)
        return
    complete, unknown = [], []
    for other, folder in steps.items():
        try:
            if other <= step and _is_complete(folder):
                complete.append(other)
        except StorageError as error:  # it may be sound
            unknown.append(other)
            logger.warning("%s is kept: %s", folder, reason_of(error))
    for other in steps.keys() - {*complete[-keep:], *unknown}:
        try:
            shutil.rmtree(steps[other])
        except OSError as error:
            logger.warning(
                "%s cannot be deleted (%s); delete it to have its space",
                steps[other],
                reason_of(error),
            )


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return where the checkpoint of a step is."""
    return run / "checkpoints" / f"step-{step:08d}"


def require_recorded(run: Path) -> None:
    """Refuse a folder that has checkpoints but no record of the run.

    Raises:
        MismatchError: it is such a folder; training would resume from them under any options.
    """
    if checkpoints_by_step(run) and not storage.exists(str(run / CONFIG_NAME)):
        raise MismatchError(
            f"{run} has checkpoints but no {CONFIG_NAME}; give another --out or delete its "
            "checkpoints"
        )


def newest_checkpoint(run: Path) -> tuple[int, Path] | None:
    """Return (step, folder) of the newest whole checkpoint, or None where there is none at all.

    Torn ones are skipped, with a warning that names them.

    Raises:
        DataError: there are checkpoints, but all are torn.
        StorageError: the disk does not tell whether there are any, or whether one is whole.
    """
    torn: list[Path] = []
    for step, folder in reversed(checkpoints_by_step(run).items()):
        try:
            verify_checkpoint(folder)
        except DataError as error:
            torn.append(folder)
            logger.warning("%s", error)
            continue
        return step, folder
    if torn:
        raise DataError(
            f"no checkpoint of {run} is whole ({', '.join(path.name for path in torn)} are torn); "
            f"delete {run / 'checkpoints'} and {run / STATE_NAME} to start anew"
        )
    return None


def last_checkpoint(run: Path) -> Path | None:
    """Return the folder of the last checkpoint, whole or torn; None where there is none."""
    return next(reversed(checkpoints_by_step(run).values()), None)


def has_checkpoint(run: Path) -> bool:
    """Tell, without hashing it, whether there is a checkpoint whose files have their lengths.

    Raises:
        StorageError: the disk does not tell.
    """
    return any(_is_complete(folder) for folder in reversed(checkpoints_by_step(run).values()))


def verify_checkpoint(folder: Path) -> None:
    """Check every file of a checkpoint against its hash.

    Raises:
        DataError: a file is missing or damaged.
        StorageError: one cannot be read; it may be sound.
    """
    try:
        hashes = _hashes(folder)
        bad = [name for name in sorted(hashes) if _sha256(folder / name) != hashes[name]]
    except (MissingDataError, DocumentError) as error:
        raise DataError(f"{folder} is torn ({error}); delete it to go on from the last") from error
    if bad:
        raise DataError(f"{folder / bad[0]} is damaged; delete the checkpoint to go on without it")


def _optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}:{field}": value
        for name, parameter in model.named_parameters()
        for field, value in optimiser.state.get(parameter, {}).items()
    }


def _is_complete(folder: Path) -> bool:
    """Tell whether every file that a checkpoint lists is there, with the length that it states.

    That finds what a power cut left half written, without hashing gigabytes at each checkpoint;
    `load_checkpoint` hashes.

    Raises:
        StorageError: the disk does not tell.
    """
    try:
        return all(has_its_length(str(folder / name)) for name in _hashes(folder))
    except (MissingDataError, TruncatedError, DocumentError):
        return False


def has_its_length(url: str) -> bool:
    """Compare the length of a safetensors file with its header: 8 bytes, then that many of JSON.

    Raises:
        DocumentError, TruncatedError: it ends within its header.
        MissingDataError, StorageError: it cannot be read.
    """
    size = storage.size_of(url) or 0
    length = int.from_bytes(storage.read_bytes(url, 0, 8), "little")
    header = parsed(storage.read_bytes(url, 8, min(length, size)), dict[str, _Place])
    tensors = max((place["data_offsets"][1] for place in header.values()), default=0)
    return size == 8 + length + tensors


def _hashes(folder: Path) -> dict[str, str]:
    """Return the hashes of a checkpoint's files, by name: of all that are there, of no others.

    Raises:
        DocumentError: the list is damaged; a name in it may lead anywhere, so none is followed.
        MissingDataError: there is none.
        StorageError: it cannot be read.
    """
    hashes = parsed(storage.read_bytes(str(folder / HASHES)), dict[str, str])
    wanted = {MODEL, OPTIMISER} | {n for n in (AVERAGE,) if storage.exists(str(folder / n))}
    if wanted != hashes.keys():
        raise DocumentError(
            f"{HASHES} lists {sorted(hashes)!r:.200} where {sorted(wanted)} are needed"
        )
    return hashes


@contextlib.contextmanager
def _named_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{place} cannot be written ({error}); mend what is named there, and run the same "
            "command again"
        ) from error


def _sha256(path: Path) -> str:
    with storage.open_read(str(path)) as stream:
        return hashlib.file_digest(cast("Any", stream), "sha256").hexdigest()
