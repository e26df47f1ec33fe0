"""The memory that is logged is what the system says, in bytes."""

import re
from pathlib import Path

import numpy as np
import torch

from milan_pipeline.core.devices import peak_memory


def told() -> int:
    """The peak that the kernel tells of this process, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def test_a_peak_is_in_bytes_and_stays() -> None:
    assert np.ones(25_000_000).all()  # 200 MB, which come and go
    peak = peak_memory(torch.device("cpu"))
    assert peak.keys() == {"memory_bytes"}
    assert 0.9 * told() < peak["memory_bytes"] < 10 * told()
