"""Write and read `state.json`: what a run is doing, and how many steps it has taken."""

import json
import re
import time
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from milan_pipeline import storage
from milan_pipeline.core.schema import Count, DocumentError, parsed
from milan_pipeline.errors import DataError, MismatchError, MissingDataError

CONFIG_NAME, STATE_NAME = "config.json", "state.json"
"""In a run's folder: its stage's record, and how far it is."""
RunState = Literal["running", "interrupted", "done"]


STEP = re.compile(r"step-\d{8,}")
"""Name of a checkpoint."""


class State(TypedDict):
    """The content of the file; `time`, when it was written, is for people only."""

    state: RunState
    step: NotRequired[Count]
    total_steps: NotRequired[Count]


def write_state(run: Path, state: RunState, *, step: int, total_steps: int) -> None:
    """Write `state.json`."""
    document = {
        "state": state,
        "step": step,
        "total_steps": total_steps,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    storage.put_bytes(str(run / STATE_NAME), (json.dumps(document) + "\n").encode())


def read_state(run: str) -> State | None:
    """Read the state of a run, given its folder or URL; None if it has no state file.

    Raises:
        DataError: the file is damaged.
    """
    url = storage.join(run, STATE_NAME)
    try:
        return parsed(storage.read_bytes(url), State)
    except MissingDataError:
        return None
    except DocumentError as error:
        raise DataError(
            f"{url} is damaged ({error}); delete it and run the command that trained there again"
        ) from error


def state_of(run: str) -> RunState | None:
    """Return whether a run is running, interrupted or done; None if it has no state file.

    Raises:
        DataError: the file is damaged.
    """
    state = read_state(run)
    return None if state is None else state["state"]


def require_ended(
    run: Path,
    *,
    allow_unfinished: bool = False,
    remedy: str = "finish it first",
    wrote: str = "pretrain or import-checkpoint",
) -> None:
    """Refuse a folder that holds no run, and one that is not done unless that is allowed.

    Args:
        run: the folder.
        allow_unfinished: whether it may be not done.
        remedy: what the error advises for a run that is not done.
        wrote: which commands write such a run.

    Raises:
        MissingDataError: there is no run.
        MismatchError: it is not done.
    """
    state = state_of(str(run))
    if state is None:
        there = storage.give_enclosing(str(run), STATE_NAME) or f"give a folder that {wrote} wrote"
        raise MissingDataError(f"{run} holds no run; {there}")
    if state != "done" and not allow_unfinished:
        raise MismatchError(f"the run {run} is {state!r}; {remedy}")


def trained_steps(run: Path) -> int:
    """Return the number of steps that a run has taken; 0 if there is no run.

    Raises:
        DataError: the file is damaged.
    """
    state = read_state(str(run))
    return 0 if state is None else state.get("step", 0)


def checkpoints_by_step(run: Path) -> dict[int, Path]:
    """Return the folders of a run's checkpoints, which may be torn, by step in rising order."""
    folder = run / "checkpoints"
    names = [name for name in storage.list_names(str(folder)) if STEP.fullmatch(name)]
    return dict(sorted((int(name[len("step-") :]), folder / name) for name in names))
