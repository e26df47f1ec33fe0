"""Whether a run has ended: all of its steps are taken, and its weights are there."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from milan_pipeline import storage
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.errors import MissingDataError, TruncatedError
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.provenance.run_state import STATE_NAME, state_of, trained_steps
from milan_pipeline.training.checkpoints import (
    has_checkpoint,
    has_its_length,
    newest_checkpoint,
)
from milan_pipeline.training.evaluations import BEST, Evaluations

logger = logging.getLogger(__name__)


def has_ended(
    record: StageRecord,
    folder: Path,
    total_steps: int,
    exports: Collection[str],
    evaluations: Evaluations | None = None,
) -> bool:
    """Tell whether an earlier run into a folder has ended.

    Its best weights may be lost: a rerun can only write them if they are those of its last step.

    Args:
        record: of the run.
        folder: its folder.
        total_steps: how many there are.
        exports: the names of the weights that it writes at its end.
        evaluations: the scores that choose its best weights, if it keeps any.

    Raises:
        MismatchError: it was another run.
        MissingDataError: the weights are lost, and so is every checkpoint to write them from.
    """
    steps = trained_steps(folder)
    if record.previous_state() != "done" or steps < total_steps:
        return False
    lost = lost_files(folder, exports)
    if evaluations is not None and set(lost).intersection(weight_files([BEST])):
        best = evaluations.best()
        if best is not None and best["step"] != steps:
            lost = [name for name in lost if name not in weight_files([BEST])]
    if lost and newest_checkpoint(folder) is None:
        raise MissingDataError(
            f"{folder} has lost {lost[0]}, and has no checkpoint to write it from; restore either, "
            "or give another --out"
        )
    return not lost


def require_a_beginning(folder: Path, *, leads: bool = True) -> None:
    """Refuse to train anew where a run was done; say so where one had begun.

    Without its checkpoints a run begins at its first step again, and writes over its weights.
    A checkpoint whose files have their lengths is enough here. Its hashes are compared on loading.

    Args:
        folder: of the run, which has work to do.
        leads: whether this process is the one that speaks.

    Raises:
        MissingDataError: the run was done, and has no checkpoint to go on from.
        DataError: its state is damaged, or all its checkpoints are torn.
    """
    steps = trained_steps(folder)
    if not steps or has_checkpoint(folder) or newest_checkpoint(folder) is not None:
        return
    if state_of(str(folder)) == "done":
        raise MissingDataError(
            f"{folder} is done after {steps} steps, and has no checkpoint to go on from; restore "
            f"one, give another --out, or delete {folder / STATE_NAME} to train it anew"
        )
    if leads:
        logger.warning(
            "%s has no checkpoint of its %d steps: it is trained anew, from the first",
            *(folder, steps),
        )


def lost_files(folder: Path, exports: Collection[str]) -> list[str]:
    """Return which files of exported weights, given by their names, a run's folder lacks.

    One that a copy cut short counts as lost.
    """
    return [name for name in weight_files(exports) if not _is_whole(str(folder / name))]


def _is_whole(url: str) -> bool:
    """Tell whether a file of weights has its length, or a description is JSON."""
    try:
        if url.endswith(".json"):
            return bool(parsed(storage.read_bytes(url), dict[str, Any]))
        return has_its_length(url)
    except (MissingDataError, TruncatedError, DocumentError):
        return False


def weight_files(exports: Collection[str]) -> list[str]:
    """Return the names of the files of exported weights."""
    return [f"{name}{ending}" for name in exports for ending in (".safetensors", ".json")]


def warn_of_lost_best(folder: Path, evaluations: Evaluations, last: str, step: int) -> None:
    """Say so where the best weights are lost, and were those of an earlier step.

    Args:
        folder: of the run.
        evaluations: its scores.
        last: the name of its last weights.
        step: of its last weights.
    """
    lost = lost_files(folder, [BEST])
    best = evaluations.best() if lost else None
    if best is not None and best["step"] != step:
        logger.warning(
            "%s has lost %s, of step %d; restore it, or use %s.safetensors, of step %d",
            *(folder, lost[0], best["step"], last, step),
        )
