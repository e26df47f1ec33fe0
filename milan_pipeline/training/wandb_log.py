"""Send a run's log to Weights & Biases, beside TensorBoard's files.

A run that is resumed goes on there under the same id, which lies in the run folder. Wandb counts
steps of its own, and drops what is logged to one that is over. So each row is a new step for it,
and has the run's step in a column over which all curves are drawn. Steps that a resumed run repeats
come twice there, with equal values. Without a network, wandb itself keeps the rows in the run
folder (WANDB_MODE=offline).
"""

import importlib
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict

from milan_pipeline import storage
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.errors import ConfigError, DataError, MissingDataError, reason_of
from milan_pipeline.provenance.record import read_record
from milan_pipeline.provenance.run_state import CONFIG_NAME

logger = logging.getLogger(__name__)

WANDB_NAME = "wandb.json"
STEP = "step"
"""The column of the run's steps."""


class _Known(TypedDict):
    id: str


class WandbLog:
    """One run of a project, while a block trains it; how the block ends is how the run ends there.

    Training goes on where wandb fails: it is said once, and the run gets no more rows there.
    """

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
        self._project, self._failed = project, False
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

    def __enter__(self) -> Self:
        self._try(lambda: self._run.define_metric(STEP))
        self._try(lambda: self._run.define_metric("*", step_metric=STEP))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait until all of it is on the disk, or sent."""
        self._try(lambda: self._run.finish(exit_code=0 if kind is None else 1))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a step's values, by name."""
        if not self._failed:
            self._try(lambda: self._run.log({STEP: step, **values}))

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - of a service's client, whatever it may be
            if not self._failed:
                logger.warning(
                    "--wandb %s gets no more of the log (%s); log.jsonl and tensorboard/ have all "
                    "of it",
                    *(self._project, reason_of(error)),
                )
            self._failed = True


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
