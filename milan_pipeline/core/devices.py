"""Choose the device to compute with, and tell how much memory the process has used at most."""

import ctypes
import resource
import sys

import torch

from milan_pipeline.errors import ConfigError, reason_of

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def pick_device(name: str, number: int | None = None) -> torch.device:
    """Return the named device; "auto" takes the first accelerator that is there, else the CPU.

    Args:
        name: as torch knows it, or "auto".
        number: of this process among those that share out the GPUs, where no one GPU is named.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            _require_gpu(device)
            if number is not None and device.index is None:
                device = torch.device("cuda", number % torch.cuda.device_count())
        else:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = reason_of(error)[:200]
        raise ConfigError(f"--device {name!r} cannot be used ({reason}); try cpu") from error
    return device


def _require_gpu(device: torch.device) -> None:
    """Look for a GPU without a CUDA context, which would take some of its memory.

    Raises:
        RuntimeError: there is no such GPU.
    """
    there = torch.cuda.device_count()
    if (device.index or 0) >= there:
        raise RuntimeError(f"torch finds {there} GPUs")


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, where its C library is glibc.

    A training step frees and asks for the same large tensors again and again; given back to the
    system, each of their pages costs a fault (30,000 a step of ViT-B/16 in bfloat16).
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


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
