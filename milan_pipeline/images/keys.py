"""Keys of samples, made of the paths of their files."""

import os
import re
from collections import Counter

import xxhash

EXTENSION = re.compile(r"(?<=[^/])\.[^./]*\Z")
UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def unique_keys(names: list[str]) -> list[str]:
    """Turn relative paths into keys that WebDataset cannot merge.

    A dot would end the key, so unusual characters become `_`; where that changes the name or two
    names meet, a hash of the original keeps them apart. A key depends on the names alone, so that
    repacking the same files gives the same keys, and so the same views.
    """
    stems = [EXTENSION.sub("", name).lstrip("/") for name in names]
    plain = ["/".join(UNSAFE.sub("_", part) for part in stem.split("/")) for stem in stems]
    count = Counter(key.lower() for key in plain)
    return [
        key
        if key == stem and count[key.lower()] == 1
        else f"{key}-{xxhash.xxh3_64_hexdigest(os.fsencode(name))}"
        for key, stem, name in zip(plain, stems, names, strict=True)
    ]
