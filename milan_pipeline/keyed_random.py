"""Random numbers that are a pure function of named values, never of a worker's state."""

import json

import numpy as np
import xxhash


def keyed_generator(*parts: str | int) -> np.random.Generator:
    """Return the random generator that belongs to `parts`.

    Equal parts give equal streams on every machine and in every process; any difference, a part
    more or `"1"` for `1` included, gives an unrelated stream. By custom the first part names the
    purpose ("mask", "view"), so that two uses of the same seed and key stay independent.

    Args:
        parts: strings and integers of any length and size.

    Returns:
        A generator over Philox, counter-based and keyed by the xxh3-128 of the parts as JSON (a
        form that quotes strings and parts the items, hence no two lists share it).
    """
    text = json.dumps(parts, ensure_ascii=True)
    digest = xxhash.xxh3_128_intdigest(text.encode("ascii"))
    return np.random.Generator(np.random.Philox(key=digest))
