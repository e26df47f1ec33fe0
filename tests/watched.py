"""Watch a process that trains, from outside."""

import json
import subprocess
from pathlib import Path
from typing import Any

POLL = 0.01
GIVE_UP = 600.0
"""Seconds that a process may take on a busy machine."""


def ended(process: subprocess.Popen[str], seconds: float) -> bool:
    """Wait so long for a process to end; tell whether it has."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def logged(run: Path) -> list[dict[str, Any]]:
    """Read the steps that a run has logged so far."""
    path = Path(run) / "log.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def children(pid: int) -> list[int]:
    """Return a process's children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
