"""Random numbers that are a pure function of named values, never of a worker's state."""

import contextlib
import json
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class _Key(ISeedSequence):
    """Gives Philox its key as a seed; `Philox(key=...)` would also ask the system for entropy."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[np.uint64]:
        """Return the key, whatever is asked for: Philox asks for two 64-bit words."""
        del n_words, dtype
        return np.frombuffer(self._key, dtype="<u8").astype(np.uint64)


def keyed_generator(*parts: str | int) -> np.random.Generator:
    """Return the random generator that belongs to `parts`.

    Equal parts give equal streams on every machine and in every process; any difference gives an
    unrelated stream, also one more part or `"1"` for `1`. The first part names the purpose ("mask",
    "view"), so that two uses of the same seed and key stay independent.

    Args:
        parts: strings and integers of any length and size.

    Returns:
        A generator over Philox, counter-based and keyed by the xxh3-128 of the parts as JSON (a
        form that quotes strings and separates items, so that no two lists have the same).
    """
    text = json.dumps(parts, ensure_ascii=True)
    key = xxhash.xxh3_128_digest(text.encode("ascii"))[::-1]
    # numpy's stubs know its own SeedSequence alone, its documentation every ISeedSequence.
    return np.random.Generator(np.random.Philox(_Key(key)))  # type: ignore[arg-type]


@contextlib.contextmanager
def seeded_globals(*parts: str | int, device: "torch.device | None" = None) -> Iterator[None]:
    """Seed the global random states of Python, numpy and torch by `parts` inside the block.

    For code that takes no generator: timm's augmentations, dropout. Afterwards the states are
    what they were before.

    Args:
        parts: as for `keyed_generator`.
        device: a GPU whose state is seeded too; torch's CPU state always is.
    """
    import torch  # noqa: PLC0415 - the order and the views, which this file is for, need none

    python, numpys, torchs = (
        int(word) for word in (keyed_generator(*parts).random(3) * 2**32).astype(np.uint64)
    )
    on_gpu = device is not None and device.type == "cuda"
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        try:
            random.seed(python)
            np.random.seed(numpys)  # noqa: NPY002
            torch.default_generator.manual_seed(torchs)  # `torch.manual_seed` reaches for GPUs
            if on_gpu:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(torchs)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
