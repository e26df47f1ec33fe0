"""Extraction on Dask workers of its own is killed, and stopped in order."""

import signal

import pytest

from tests.faults import jobs
from tests.faults.campaign import SCALE, scaled
from tests.faults.kill_chain import kill_at_random
from tests.faults.stops import stop_and_go_on

SIGNALS = (signal.SIGINT, signal.SIGTERM) if SCALE == "whole" else (signal.SIGINT,)


def test_killed_at_random(inputs, tmp_path) -> None:
    kill_at_random(jobs.EXTRACT_DASK, inputs, tmp_path, scaled(15, 1))


@pytest.mark.parametrize("number", SIGNALS, ids=[number.name for number in SIGNALS])
def test_all_its_processes_are_signalled(number, inputs, tmp_path) -> None:
    """The terminal's and a scheduler's signals come to workers, too."""
    stop_and_go_on(jobs.EXTRACT_DASK, number, inputs, tmp_path / "out")
