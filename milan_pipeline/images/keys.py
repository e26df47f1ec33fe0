"""Keys of samples, made of the paths of their files."""

import os
import re
from collections.abc import Iterable

import numpy as np
import xxhash

EXTENSION = re.compile(r"(?<=[^/])\.[^./]*\Z")
UNSAFE = re.compile(r"[^A-Za-z0-9_/-]")


class UniqueKeys:
    """Turns relative paths into keys that WebDataset cannot merge.

    A dot would end the key, so unusual characters become `_`; where that changes the name or two
    names meet, a hash of the original keeps them apart. A key depends on the names alone, so that
    repacking the same files gives the same keys, and so the same views.

    Args:
        names: all of them; what is kept is 8 bytes for each key that meets another.
    """

    def __init__(self, names: Iterable[str]) -> None:
        hash_n = np.fromiter((_hash(_plain(_stem(name))) for name in names), dtype=np.uint64)
        hash_n.sort()
        self._met = frozenset(hash_n[1:][hash_n[1:] == hash_n[:-1]].tolist())

    def of(self, name: str) -> str:
        """Return the key of one of the names."""
        stem = _stem(name)
        key = _plain(stem)
        if key == stem and not (self._met and _hash(key) in self._met):
            return key
        return f"{key}-{xxhash.xxh3_64_hexdigest(os.fsencode(name))}"


def _plain(stem: str) -> str:
    return UNSAFE.sub("_", stem)


def _hash(key: str) -> int:
    return xxhash.xxh3_64_intdigest(key.lower().encode())


def _stem(name: str) -> str:
    return EXTENSION.sub("", name).lstrip("/")
