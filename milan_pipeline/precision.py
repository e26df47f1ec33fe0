"""Which number type a teacher computes in, where the device is to choose."""

import dataclasses

import torch

from milan_pipeline.teacher_spec import TeacherSpec

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def settle_precision(
    spec: TeacherSpec, device: torch.device, *, existing: str | None = None
) -> TeacherSpec:
    """Put a precision into the place of "auto": that of the targets that exist, else the device's.

    Never fp16 by itself: its range is not that of the weights, bfloat16's is.

    Args:
        spec: what is asked for; given back unchanged if it names a precision.
        device: where the teacher will run.
        existing: precision of the store that is to be gone on with, if there is one.
    """
    if spec.precision != "auto":
        return spec
    found = existing or ("bf16" if has_bfloat16(device) else "fp32")
    return dataclasses.replace(spec, precision=found)


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device computes in bfloat16 by itself, and so faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False
