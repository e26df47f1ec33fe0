"""The memory that is logged is at least what was allocated, in bytes."""

import numpy as np
import torch

from milan_pipeline.core.devices import peak_memory


def test_a_peak_is_in_bytes_and_stays() -> None:
    device = torch.device("cpu")
    before = peak_memory(device)
    assert before.keys() == {"memory_bytes"}
    held = np.ones(before["memory_bytes"] // 8 + 4_000_000)
    during = peak_memory(device)["memory_bytes"]
    assert during >= held.nbytes
    del held
    assert peak_memory(device)["memory_bytes"] >= during
