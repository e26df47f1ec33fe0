"""Train into a run folder: under its lock, with its record and its state, whatever is learnt."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from milan_pipeline.batching import BatchT
from milan_pipeline.distributed import World
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.provenance import StageRecord
from milan_pipeline.run_log import run_lock
from milan_pipeline.run_state import trained_steps, write_state
from milan_pipeline.training import Trainer


def has_ended(record: StageRecord, folder: Path, total_steps: int) -> bool:
    """Tell whether an earlier run into a folder did all of its steps.

    Raises:
        MismatchError: it was another run.
    """
    return record.previous_state() == "done" and trained_steps(folder) >= total_steps


def train_into(
    folder: Path,
    trainer: Trainer[BatchT],
    batches_from: Callable[[range], Generator[BatchT, None, None]],
    stop: StopRequest,
    *,
    world: World,
    record: StageRecord,
    prepared: Callable[[], None],
    finish: Callable[[dict[str, Any]], dict[str, Any]],
    after_step: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Train to the last step together with the other processes, and call the run done.

    Args:
        folder: of the run.
        trainer: for it.
        batches_from: opens the stream of this process's parts of a range of steps.
        stop: asked after each step.
        world: all processes; the first one writes.
        record: `config.json`.
        prepared: called when all are ready, before the first of them writes anything.
        finish: writes what the run ends in, given the trainer's counts; returns the counts for the
            record. Called in the first process alone.
        after_step: see `Trainer.train`.

    Returns:
        The counts of the record; in processes other than the first, the trainer's own.
    """
    world.wait_for_all()  # until all have read what an earlier run left
    prepared()
    if not world.leads:
        return trainer.train(batches_from, stop, after_step=after_step)
    with run_lock(folder):
        # Only now, when nothing can be wrong with the options any more, are they the run's own.
        record.begin()
        counts = trainer.train(batches_from, stop, after_step=after_step)
        told = finish(counts)
        write_state(folder, "done", step=counts["steps"], total_steps=counts["steps"])
        record.finish(told)
    return told
