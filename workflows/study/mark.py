"""The mark of a task that is done: python -m workflows.study.mark MARKS NAME DIGEST writes one."""

import json
import sys
from pathlib import Path
from typing import Any


def read_mark(marks: Path, name: str) -> dict[str, Any]:
    """Return what `write_mark` wrote of a task; empty if there is nothing, or it is damaged."""
    try:
        mark = json.loads((marks / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}


def write_mark(
    marks: Path, name: str, digest: str, seconds: float | None = None, cpu: float | None = None
) -> None:
    """Note that a task is done, and how long its last part took: seconds, and those of CPU time."""
    times = {"seconds": seconds, "cpu_seconds": cpu}
    known = {key: round(value, 3) for key, value in times.items() if value is not None}
    mark = {"digest": digest} | known
    part = marks / f"{name}.part"
    part.write_text(json.dumps(mark) + "\n", encoding="utf-8")
    part.replace(marks / f"{name}.json")


if __name__ == "__main__":
    marks, name, digest = sys.argv[1:]
    write_mark(Path(marks), name, digest)
