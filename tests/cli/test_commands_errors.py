"""A command's block explains errors that torch raises at any line of a stage."""

import dataclasses

import pytest

from milan_pipeline.cli.commands import stage_command
from milan_pipeline.errors import StorageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Do nothing."""


def test_a_loader_process_that_dies_anywhere_in_a_stage_is_explained():
    def run(_: Options) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    command = stage_command("toy", Options, run=run, dry_run=None, takes_recipes=False)
    with pytest.raises(StorageError, match=r"a loader process died .* give fewer --workers"):
        command.main(args=[], standalone_mode=False)
