"""Choose a teacher's batch size where `--batch-size auto` leaves it to the machine."""

from milan_pipeline.cli.options import AUTO
from milan_pipeline.core.console import say
from milan_pipeline.errors import ConfigError
from milan_pipeline.planning.teacher_speed import fastest_batch
from milan_pipeline.provenance.record import read_record
from milan_pipeline.stages.extract_targets.command import USUAL_BATCH, ExtractTargets
from milan_pipeline.targets.store_record import record_url
from milan_pipeline.teacher.teacher import Teacher

COMPILED_BATCH = 256
"""With `--compile`: each size that a search tries would be compiled first, in a minute or so."""


def settled_batch(config: ExtractTargets, teacher: Teacher) -> int:
    """Return the batch size; if it is chosen here, say so.

    A batch size that an earlier run has recorded is kept: on a GPU, last bits may depend on it.

    Raises:
        ConfigError: each part of a job array would choose one.
    """
    if config.batch_size != AUTO:
        return config.batch_size
    recorded = recorded_batch(config)
    if recorded is not None:
        size, why = recorded, f"that of earlier runs into {config.out}"
    elif config.part is not None:
        raise ConfigError(
            f"--batch-size auto with --part {config.part} would be settled by each part; run "
            f"`extract-targets --init --batch-size {USUAL_BATCH}` once, or give all parts a number"
        )
    elif teacher.device.type == "cpu":
        size, why = USUAL_BATCH, "the usual one on a CPU"
    elif config.compile:
        size, why = COMPILED_BATCH, "the usual one with --compile"
    else:
        size, why = fastest_batch(teacher), "about as fast as any here"
    say(f"batch size {size}, {why}", batch_size=size)
    return size


def recorded_batch(config: ExtractTargets) -> int | None:
    """Return the batch size of earlier runs into the store; None if there were none."""
    record = None if config.overwrite else read_record(record_url(config.out, "extract-targets"))
    recorded = None if record is None else record["config"].get("batch_size")
    return recorded if isinstance(recorded, int) else None
