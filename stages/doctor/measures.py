"""Measures what `doctor` tells of: products of matrices, a disk, shared memory, the hub."""

import http.client
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import torch

from milan_pipeline.stages.doctor.rows import DiskSpeed

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIZES = {"cpu": 256, "cuda": 4096}
TRIES = 3
DISK_BYTES, PIECE = 64 * 2**20, 2**22
HUB, HUB_SECONDS = "https://huggingface.co", 3.0
PROXY_REFUSALS = (403, 407, 502, 503, 504)
YES = ("1", "ON", "YES", "TRUE")
"""What the hub's client takes for a yes."""
SHARED = "/dev/shm"  # noqa: S108 - it is looked at
DRIVER = Path("/proc/driver/nvidia/version")

Clock = Callable[[], float]


def gpu_names() -> list[str]:
    """Return name and memory of each GPU that torch finds."""
    if not torch.cuda.is_available():
        return []
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in found]


def has_driver() -> bool:
    """Tell whether the system has NVIDIA's driver."""
    return DRIVER.exists() or shutil.which("nvidia-smi") is not None


def product_rates(
    device: torch.device, size: int | None = None, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Return multiply-adds a second of a matrix product in each precision, the best of three.

    Args:
        device: where it is computed.
        size: rows and columns of the matrices; None for what suits the device.
        clock: seconds, from any moment on.
    """
    side = size or SIZES.get(device.type, SIZES["cuda"])
    return {
        name: side**3 / _least_seconds(torch.ones(side, side, device=device, dtype=dtype), clock)
        for name, dtype in PRECISIONS.items()
    }


def _least_seconds(matrix_SS: torch.Tensor, clock: Clock) -> float:
    """Time a product after one that is not timed, and wait for its last number each time."""
    seconds = []
    for _ in range(1 + TRIES):
        begun = clock()
        (matrix_SS @ matrix_SS)[-1, -1].item()
        seconds.append(clock() - begun)
    return max(min(seconds[1:]), 1e-9)


def disk_speed(
    folder: str, size: int = DISK_BYTES, clock: Clock = time.perf_counter
) -> DiskSpeed | str:
    """Write a file to the disk and read it, where the system allows from the disk itself.

    Args:
        folder: local; the file is removed again.
        size: its bytes.
        clock: seconds, from any moment on.

    Returns:
        Bytes a second; or the reason why it cannot be done.
    """
    piece = os.urandom(PIECE)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            begun = clock()
            for start in range(0, size, PIECE):
                file.write(piece[: size - start])
            os.fsync(file.fileno())
            written = clock()
            if hasattr(os, "posix_fadvise"):  # of Linux: forget what memory holds of the file
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            start_reading = clock()
            while file.read(PIECE):
                pass
            read = clock()
    except OSError as error:
        return error.strerror or str(error)
    return DiskSpeed(
        written=size / max(written - begun, 1e-9), read=size / max(read - start_reading, 1e-9)
    )


def free_shared_bytes(folder: str = SHARED) -> int | None:
    """Return the free bytes of shared memory; None where there is no such folder."""
    return shutil.disk_usage(folder).free if Path(folder).is_dir() else None


def hub_in_use() -> tuple[str, bool]:
    """Return the URL of the hub, and whether its client is told to ask nothing."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in YES
    return os.environ.get("HF_ENDPOINT") or HUB, offline


def hub_failure(endpoint: str, offline: bool, seconds: float = HUB_SECONDS) -> str | None:
    """Ask the hub for its first page; return why it did not answer, None if it has.

    Args:
        endpoint: its URL.
        offline: whether its client was told to ask nothing.
        seconds: to wait at most.
    """
    if offline:
        return "HF_HUB_OFFLINE is set, so it is not asked"
    try:
        request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - the client's own
        with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310
            return None
    except urllib.error.HTTPError as error:
        # The hub may refuse a HEAD of its first page; a proxy refuses with these.
        return f"HTTP {error.code} {error.reason}" if error.code in PROXY_REFUSALS else None
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
