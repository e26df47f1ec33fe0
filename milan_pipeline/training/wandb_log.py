"""Send a run's log to Weights & Biases, beside TensorBoard's files.

A run that is resumed goes on there under the same id, which lies in the run folder. The steps that
it repeats are there already, with equal values, and wandb leaves out what comes again. Without a
network, wandb itself keeps the rows in the run folder (WANDB_MODE=offline).
"""

import importlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from milan_pipeline import storage
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.errors import ConfigError, DataError, MissingDataError, reason_of
from milan_pipeline.provenance.record import read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME

WANDB_NAME = "wandb.json"


class _Known(TypedDict):
    id: str


class WandbLog:
    """One run of a project."""

    def __init__(self, run: Path, project: str) -> None:
        """Begin the run, or go on with it.

        Args:
            run: the run folder; its record has the options that are shown.
            project: where the run is listed.

        Raises:
            ConfigError: wandb is not installed, or cannot begin.
            DataError: the file with the id is damaged.
        """
        library: Any = importlib.import_module("wandb")
        record = read_record(str(run / CONFIG_NAME)) or {"config": {}}
        try:
            self._run = library.init(
                project=project,
                id=_id_of(run),
                resume="allow",
                name=run.name,
                dir=str(run),
                config=record["config"],
                settings={"console": "off"},  # progress bars are no text to keep
            )
        except library.Error as error:
            raise ConfigError(
                f"--wandb {project} cannot begin ({reason_of(error)}); run `wandb login`, set "
                "WANDB_MODE=offline, or leave it out"
            ) from error

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a step's values, by name."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Wait until all of it is on the disk, or sent."""
        self._run.finish()


def _id_of(run: Path) -> str:
    """Return the run's id, made when it is first asked for."""
    url = str(run / WANDB_NAME)
    try:
        return parsed(storage.read_bytes(url), _Known)["id"]
    except MissingDataError:
        made = secrets.token_hex(8)
        storage.put_bytes(url, (json.dumps({"id": made}) + "\n").encode())
        return made
    except DocumentError as error:
        raise DataError(
            f"{url} is damaged ({error}); delete it to begin a new run there"
        ) from error
