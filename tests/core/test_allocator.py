"""Freed arrays are given back to the system once that is settled."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from milan_pipeline.core.allocator import return_large_blocks

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "settled":
    return_large_blocks()
del (largest := [np.ones(30 << 20, np.uint8)])[:]  # from here on, smaller blocks are kept
before = resident()
large, small = [], []
for _ in range(10):
    large.append(np.ones(13 << 20, np.uint8))
    small.append(np.ones(1 << 16, np.uint8))
del large
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries differ")
@pytest.mark.parametrize("word", ["settled", "as it is"])
def test_large_blocks_are_returned(word: str) -> None:
    words = [sys.executable, "-c", PROGRAM, word]
    kept = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert (kept < 20 << 20) == (word == "settled")
