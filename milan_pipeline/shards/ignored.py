"""What a manifest says of files that were left out: all of them, or counts and the first ones."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from milan_pipeline import storage
from milan_pipeline.images.folder_walk import Ignored

NAME = "ignored.jsonl"
SHOWN = 100
"""More than these have a file of their own, since every stage reads the whole manifest."""


def ignored_fields(folder: str, rows: Sequence[Ignored]) -> dict[str, Any]:
    """Return the fields of a manifest about files that were left out; write the file of many.

    Args:
        folder: path or URL of the manifest's folder.
        rows: each file with its reason.

    Returns:
        `ignored`, the first of them; and if there are more, `ignored_counts` by reason, of the
        most frequent reasons.

    Raises:
        StorageError: the file of many cannot be written.
    """
    if len(rows) <= SHOWN:
        return {"ignored": list(rows)}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    storage.put_bytes(storage.join(folder, NAME), text.encode())
    counts = Counter(row["reason"] for row in rows)
    return {"ignored": list(rows[:SHOWN]), "ignored_counts": dict(counts.most_common(SHOWN))}
