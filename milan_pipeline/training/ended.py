"""Whether a run has ended: all of its steps are taken, and its weights are there."""

from collections.abc import Collection
from pathlib import Path

from milan_pipeline import storage
from milan_pipeline.errors import MissingDataError
from milan_pipeline.provenance.record import StageRecord
from milan_pipeline.training.checkpoints import newest_checkpoint
from milan_pipeline.training.state import trained_steps


def has_ended(
    record: StageRecord, folder: Path, total_steps: int, exports: Collection[str]
) -> bool:
    """Tell whether an earlier run into a folder has ended.

    Args:
        record: of the run.
        folder: its folder.
        total_steps: how many there are.
        exports: the names of the weights that it writes at its end.

    Raises:
        MismatchError: it was another run.
        MissingDataError: the weights are lost, and so is every checkpoint to write them from.
    """
    if record.previous_state() != "done" or trained_steps(folder) < total_steps:
        return False
    files = [f"{name}{ending}" for name in exports for ending in (".safetensors", ".json")]
    lost = sorted(set(files).difference(storage.list_names(str(folder))))
    if lost and newest_checkpoint(folder) is None:
        raise MissingDataError(
            f"{folder} has lost {lost[0]}, and has no checkpoint to write it from; restore either, "
            "or give another --out"
        )
    return not lost
