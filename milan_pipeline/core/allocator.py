"""Have freed memory of large arrays go back to the system at once.

glibc raises the size from which it does so with each large block that is freed, up to 32 MiB. What
is smaller stays with the thread that made it, in pieces. Encoding targets makes arrays of 13 MB in
each thread, and so took twice the memory that it needs (1.99 GB where 0.97 GB do).
"""

import ctypes
import functools

M_MMAP_THRESHOLD = -3
LARGE_BYTES = 4 << 20


@functools.cache
def return_large_blocks() -> None:
    """Settle this for the rest of the process; where the C library is another one, do nothing."""
    settle = getattr(ctypes.CDLL(None), "mallopt", None)
    if settle is not None:
        settle(M_MMAP_THRESHOLD, LARGE_BYTES)
