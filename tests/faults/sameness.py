"""What of an output must be the same, byte for byte, however often its stage was killed."""

import json
import os
from pathlib import Path
from typing import Any

from milan_pipeline.provenance.record import read_record

OF_TIMES = {"tensorboard", "progress"}
"""Folders whose files tell of times: events, and the reports that `status` reads."""
OF_THIS_RUN = ("started", "seconds", "counts")
"""What a record says of the process that wrote it last."""


def files(folder: Path) -> dict[str, bytes]:
    """Return every file's bytes by name, temporaries and what tells of times aside."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        temporary = path.name.startswith(".") and path.name.endswith(".tmp")
        if path.is_file() and not temporary and not OF_TIMES & set(name.parts):
            found[str(name)] = path.read_bytes()
    return found


def data_set(folder: Path) -> dict[str, Any]:
    """Return all that a stage on data has written: no file more, none less, of the same bytes."""
    found: dict[str, Any] = files(folder)
    for record in [name for name in found if "/" not in name and name in _RECORDS]:
        document = read_record(str(folder / record)) or {}
        for name in OF_THIS_RUN:
            document.pop(name)
        for name in ("out", "dest", "part", "init"):
            document["config"].pop(name, None)
        found[record] = document
    return found


def run(folder: Path) -> dict[str, Any]:
    """Return a run's weights, all of them, and each step's loss, once."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    kept = {
        name: data
        for name, data in files(folder).items()
        if name.startswith("checkpoints/") or name.endswith((".safetensors", "evaluations.jsonl"))
    }
    state = json.loads((folder / "state.json").read_text())["state"]
    return kept | {"losses": [(row["step"], row["loss"]) for row in rows], "state": state}


def progress(folder: Path) -> int:
    """Return how far a stage has come: files and logged steps, half-written ones included."""
    written = sum(len(names) for _, _, names in os.walk(folder))  # heedless of what goes meanwhile
    log = folder / "log.jsonl"
    return written + (log.read_bytes().count(b"\n") if log.exists() else 0)


def difference(found: dict[str, Any], right: dict[str, Any]) -> str:
    """Name what was lost, what came in addition and what differs; empty where nothing does."""
    lost, more = sorted(right.keys() - found.keys()), sorted(found.keys() - right.keys())
    differing = sorted(n for n in right.keys() & found.keys() if right[n] != found[n])
    parts = {"lost": lost, "in addition": more, "differing": differing}
    return "; ".join(f"{word}: {names}" for word, names in parts.items() if names)


_RECORDS = tuple(
    f"{stage}.json"
    for stage in ("pack-images", "index", "extract-targets", "pack-targets", "transcode")
)
