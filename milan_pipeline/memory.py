"""The most memory that this process has held so far, in the machine and on its GPU."""

import resource
import sys

import torch

RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the peaks of this process since it began, in bytes.

    Args:
        device: where it computes.

    Returns:
        `memory_bytes`: resident, without that of other processes such as the loader's workers; and
        on a GPU `cuda_memory_bytes`: of tensors, as torch counts them.
    """
    peaks = {"memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT}
    if device.type == "cuda":
        peaks["cuda_memory_bytes"] = int(torch.cuda.max_memory_allocated(device))
    return peaks
