"""What the device itself can do: matrix products and copies, measured in the same run."""

import torch

from benchmarks.gpu.running import Figures, Findings
from benchmarks.gpu.setting import Setting

SIDE, COPIED = 8192, 1 << 28
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def measure(setting: Setting, known: Figures, found: Findings) -> None:
    """Measure TFLOP/s by type, and GB/s of copies to the device, from it and within it."""
    del known
    side, count = setting.of(SIDE, 64), setting.of(COPIED, 1 << 16)
    for name, dtype in DTYPES.items():
        with found.going_on(f"matmul {name}"):
            left, right = (torch.randn(side, side, device=setting.device).to(dtype) for _ in "lr")
            rate = setting.rate(lambda a=left, b=right: a @ b, 2 * side**3)  # type: ignore[misc]
            found.figure(f"matmul {name}, TFLOP/s", rate / 1e12)
    here = torch.zeros(count, dtype=torch.uint8, pin_memory=setting.on_gpu)
    there = torch.zeros(count, dtype=torch.uint8, device=setting.device)
    second = torch.zeros_like(there)
    copies = {
        "to the device": (there, here),
        "from it": (here, there),
        "within it": (second, there),
    }
    for name, (to, source) in copies.items():
        copy = lambda a=to, b=source: a.copy_(b, non_blocking=True)  # noqa: E731
        found.figure(f"copy {name}, GB/s", setting.rate(copy, count) / 1e9)


def matmul_peak(known: Figures, precision: str) -> float | None:
    """Return the multiply-adds a second of the device's own product, if they were measured."""
    rate = known.get(f"matmul {precision}, TFLOP/s")
    return None if rate is None else rate * 1e12 / 2
