"""`state.json`: what a run is doing and how far it has come, written and read."""

import json
import time
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from milan_pipeline import storage
from milan_pipeline.core.schema import MISSHAPEN, Count, parsed
from milan_pipeline.errors import DataError, MissingDataError

CONFIG_NAME, STATE_NAME = "config.json", "state.json"
"""In a run's folder: its stage's record, and how far it is."""
RunState = Literal["running", "interrupted", "done"]


class State(TypedDict):
    """What the file says; `time`, when it was written, is for people."""

    state: RunState
    step: NotRequired[Count]
    total_steps: NotRequired[Count]


def write_state(run: Path, state: RunState, *, step: int, total_steps: int) -> None:
    """Write `state.json`: what the run is doing and how far it has come."""
    document = {
        "state": state,
        "step": step,
        "total_steps": total_steps,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    storage.put_bytes(str(run / STATE_NAME), (json.dumps(document) + "\n").encode())


def read_state(run: str) -> State | None:
    """Read what a run, a folder or URL, says of itself; None where nothing tells of it.

    Raises:
        DataError: the file is damaged.
    """
    url = storage.join(run, STATE_NAME)
    try:
        return parsed(storage.read_bytes(url), State)
    except MissingDataError:
        return None
    except MISSHAPEN as error:
        raise DataError(f"{url} is damaged ({error}); run its stage again") from error


def state_of(run: str) -> RunState | None:
    """Return what a run, a folder or URL, is said to be; None where nothing tells of it.

    Raises:
        DataError: the file is damaged.
    """
    found = read_state(run)
    return None if found is None else found["state"]


def trained_steps(run: Path) -> int:
    """Return the steps that a run's state tells of; 0 where there is no run.

    Raises:
        DataError: the file is damaged.
    """
    found = read_state(str(run))
    return 0 if found is None else found.get("step", 0)
