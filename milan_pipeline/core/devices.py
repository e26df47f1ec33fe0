"""Choose the device to compute with, and how exactly; tell of its memory.

A device is chosen before anything is computed on it, so that what holds for the whole process is
set here.
"""

import ctypes
import os
import resource
import sys

import torch

from milan_pipeline.errors import ConfigError, reason_of

TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def pick_device(name: str, number: int | None = None, *, option: str = "--device") -> torch.device:
    """Return the named device; "auto" takes the first accelerator that is there, else the CPU.

    From then on float32 is computed in float32: see `compute_float32_exactly`.

    Args:
        name: as torch knows it, or "auto".
        number: of this process among those that share out the GPUs, where no one GPU is named.
        option: that names the device.

    Raises:
        ConfigError: there is no such device here, or it would round float32 to TF32.
    """
    compute_float32_exactly()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            _require_gpu(device)
            _require_float32()
            if number is not None and device.index is None:
                device = torch.device("cuda", number % torch.cuda.device_count())
        else:
            torch.empty(0, device=device).cpu()  # "meta" has no values
    except (RuntimeError, AssertionError) as error:
        reason = reason_of(error)[:200]
        raise ConfigError(
            f"{option} {name!r} cannot be used ({reason}); try {_meant(name)}"
        ) from error
    return device


def _meant(name: str) -> str:
    """Return the device that a misspelt name stands for: 0, gpu or CUDA; else the CPU."""
    if name.isdecimal():
        return f"cuda:{name}"
    return "cuda" if name.lower() in ("gpu", "cuda") and name != "cuda" else "cpu"


def pick_devices(names: str) -> list[torch.device]:
    """Return the devices that names joined by commas mean, or "all": every GPU, else the CPU.

    A device that is named twice runs two processes.

    Raises:
        ConfigError: one of them is not there or empty, or "all" is asked for in each of several
            processes.
    """
    if names == "all":
        if number_on_this_machine() is not None:
            raise ConfigError(
                "--devices all would start a process a GPU from each of the processes that Slurm "
                "or torchrun has started here; start one, or leave --devices out"
            )
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = ",".join(f"cuda:{number}" for number in range(gpus)) or "cpu"
    each = [name.strip() for name in names.split(",")]
    if not all(each):
        raise ConfigError(
            f"--devices {names!r} has an empty name; give names such as cuda:0,cuda:2, or all"
        )
    return [pick_device(name, option="--devices") for name in each]


# How many processes of a step there are, and the number of this one on its machine.
LAUNCHERS = (("SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"), ("LOCAL_WORLD_SIZE", "LOCAL_RANK"))


def number_on_this_machine(part: int | None = None) -> int | None:
    """Return which of the processes that share this machine's GPUs this is; None if it is alone.

    Args:
        part: the number of its share of the work, which counts where neither Slurm nor torchrun
            started several processes.
    """
    for count, number in LAUNCHERS:
        processes, own = os.environ.get(count, ""), os.environ.get(number, "")
        if processes.isdecimal() and own.isdecimal() and int(processes) > 1:
            return int(own)
    return part


def device_of_process(
    name: str, *, number: int | None = None, part: int | None = None
) -> torch.device:
    """Return the device of a process: of several on a machine, each takes a GPU of its own.

    Args:
        name: see `pick_device`.
        number: of this process among those of this machine, where who started it has told it.
        part: see `number_on_this_machine`.

    Raises:
        ConfigError: there is no such device here.
    """
    return pick_device(name, number_on_this_machine(part) if number is None else number)


def _require_gpu(device: torch.device) -> None:
    """Look for a GPU without a CUDA context, which would take some of its memory.

    Raises:
        RuntimeError: there is no such GPU.
    """
    there = torch.cuda.device_count()
    if (device.index or 0) >= there:
        raise RuntimeError(f"torch finds {there} GPUs")


def _require_float32() -> None:
    """Refuse a variable by which NVIDIA's libraries round float32, whatever torch asks them for.

    Raises:
        ConfigError: it is set, and not to 0.
    """
    value = os.environ.get(TF32_OVERRIDE) or "0"
    if value != "0":
        raise ConfigError(
            f"{TF32_OVERRIDE}={value} has GPUs round float32 to TF32 whatever --precision "
            "says; unset it, or set it to 0"
        )


def compute_float32_exactly() -> None:
    """Have torch compute products and convolutions of float32 in float32, in the whole process.

    GPUs round them to 10 bits (TF32) if that is allowed: convolutions by default, and matrix
    products if TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is set, as NVIDIA's containers do.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16, which make it faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


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
