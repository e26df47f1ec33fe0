"""Pause Python's search for cycles of objects.

The search runs after so many new objects, and visits all that the process has: with torch loaded it
takes a third of a second. Whoever reads millions of rows would spend most of the time in it.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_search_for_cycles() -> Iterator[None]:
    """Let no search begin in this block. What is in no cycle is freed as always."""
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searched:
            gc.enable()
