"""Keys of samples, made of the paths of their files."""

import os
import re

import numpy as np
import xxhash

EXTENSION = re.compile(r"(?<=[^/])\.[^./]*\Z")
UNSAFE = re.compile(r"[^A-Za-z0-9_/-]")


def unique_keys(names: list[str]) -> list[str]:
    """Turn relative paths into keys that WebDataset cannot merge.

    A dot would end the key, so unusual characters become `_`; where that changes the name or two
    names meet, a hash of the original keeps them apart. A key depends on the names alone, so that
    repacking the same files gives the same keys, and so the same views.
    """
    keys = [UNSAFE.sub("_", _stem(name)) for name in names]
    # Hashes, since as many texts in small letters would take most of the memory.
    meeting = (xxhash.xxh3_64_intdigest(key.lower().encode()) for key in keys)
    hash_n = np.fromiter(meeting, dtype=np.uint64, count=len(keys))
    found, count = np.unique(hash_n, return_counts=True)
    met = set(found[count > 1].tolist())
    for row, name in enumerate(names):
        if keys[row] != _stem(name) or int(hash_n[row]) in met:
            keys[row] += f"-{xxhash.xxh3_64_hexdigest(os.fsencode(name))}"
    return keys


def _stem(name: str) -> str:
    return EXTENSION.sub("", name).lstrip("/")
