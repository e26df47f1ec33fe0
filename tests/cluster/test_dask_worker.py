"""What a Dask worker logs of Dask's own."""

import logging

import pytest

from milan_pipeline.cluster.dask_worker import is_worth_a_line


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Failed to communicate with scheduler during heartbeat.", False),
        ("Compute Failed", True),
    ],
)
def test_a_heartbeat_that_finds_no_scheduler_is_not_told(message: str, told: bool) -> None:
    record = logging.LogRecord("distributed.worker", logging.ERROR, "", 0, message, (), None)
    assert is_worth_a_line(record) is told
