"""Documents with one value replaced by another, and the hashes that make them credible."""

import hashlib
import json
from typing import Any

WRONG: list[Any] = [
    None, True, -1, 0, 1.5, 1e400, 2**70, "text", "\x00", "../..", [[]], {}, {"a": 1},
    "9" * 5000,
]  # fmt: skip


def mutated(document: Any, random: Any) -> Any:
    """Return a document with one value, at any depth, replaced, or a field left out or added."""
    if isinstance(document, dict | list) and document and random.random() < 0.85:
        places = list(document) if isinstance(document, dict) else range(len(document))
        at = random.choice(places)
        copy: Any = document.copy()
        if isinstance(document, dict) and random.random() < 0.1:
            del copy[at]
        elif isinstance(document, dict) and random.random() < 0.05:
            copy["unknown"] = random.choice(WRONG)
        else:
            copy[at] = mutated(document[at], random)
        return copy
    return random.choice(WRONG)


def of_another_kind(document: Any, random: Any) -> Any:
    """Return a document with one value replaced by one of another of JSON's kinds.

    For documents that have no hash of their own, which cannot tell a value from others of its kind.
    """
    if isinstance(document, dict | list) and document and random.random() < 0.85:
        places = list(document) if isinstance(document, dict) else range(len(document))
        at = random.choice(places)
        copy: Any = document.copy()
        copy[at] = of_another_kind(document[at], random)
        return copy
    return random.choice([wrong for wrong in WRONG if _kind(wrong) != _kind(document)])


def sealed(document: Any) -> Any:
    """Give a manifest or a record the hash of its own that makes it credible."""
    if not isinstance(document, dict):
        return document
    plain = {name: value for name, value in document.items() if name != "sha256"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return plain | {"sha256": hashlib.sha256(text.encode()).hexdigest()}


def _kind(value: Any) -> type:
    """Numbers are of one kind, whole or not; true and false are none."""
    return float if type(value) is int else type(value)
