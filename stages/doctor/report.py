"""What `doctor` looks at, and how it says so."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from milan_pipeline import storage
from milan_pipeline.core.console import report
from milan_pipeline.core.cores import load_of_others, own_cores
from milan_pipeline.core.devices import has_bfloat16, pick_device
from milan_pipeline.core.progress import waiting
from milan_pipeline.stages.doctor import measures, rows
from milan_pipeline.stages.doctor.command import Examine
from milan_pipeline.stages.doctor.rows import WORST_FIRST, Row


def examine(config: Examine) -> None:
    """Look at everything, and print a row for each.

    Raises:
        ConfigError: the device is unknown.
    """
    with waiting("doctor"):
        found = list(examined(config))
    report(lines_of(found), document_of(found))


def examined(config: Examine, disk_bytes: int = measures.DISK_BYTES) -> Iterator[Row]:
    """Look at one thing after another.

    Args:
        config: what to look at.
        disk_bytes: to write to the folder.
    """
    load = load_of_others()  # before anything is computed here
    device = pick_device(config.device)
    yield rows.gpu_row(measures.gpu_names(), has_driver=measures.has_driver())
    chosen = "bf16" if has_bfloat16(device) else "fp32"  # as the teacher's `settle_precision`
    yield rows.precision_row(measures.product_rates(device), chosen)
    there, usable = os.cpu_count() or 1, own_cores()
    yield rows.cores_row(usable, there)
    yield rows.load_row(load, there)
    yield rows.threads_row(torch.get_num_threads(), usable, os.environ.get("OMP_NUM_THREADS"))
    yield rows.shared_memory_row(measures.free_shared_bytes())
    free, folder = storage.free_bytes(config.folder), storage.local_path(config.folder)
    if free is None or folder is None:
        yield Row(name="disk", found=f"{config.folder} is on no local disk, and is not timed")
    elif not os.path.isdir(folder):  # noqa: PTH112 - raises nothing
        yield rows.no_folder_row(config.folder)
    else:
        yield rows.disk_row(config.folder, measures.disk_speed(str(folder), disk_bytes), free)
    if config.hub:
        yield rows.hub_row(measures.hub_failure(*measures.hub_in_use()))


def lines_of(found: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each row, and below it what helps."""
    width = max(len(row.name) for row in found)
    for row in found:
        yield f"{row.state:<4}  {row.name:<{width}}  {row.found}"
        if row.remedy:
            yield f"{'':<{6 + width}}  set: {row.remedy}"


def document_of(found: Sequence[Row]) -> dict[str, Any]:
    """Return the JSON object: the worst state, and all that is known of each row."""
    states = {row.state for row in found}
    return {
        "state": next(state for state in WORST_FIRST if state in states),
        "rows": [
            {
                "name": row.name,
                "state": row.state,
                "found": row.found,
                "remedy": row.remedy,
                "facts": dict(row.facts),
            }
            for row in found
        ],
    }
