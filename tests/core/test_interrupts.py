"""Stop signals: agreed on by all processes, and heeded at once while there is nothing to keep."""

import os
import signal
import subprocess
import sys
from subprocess import PIPE

import pytest

from milan_pipeline.core.interrupts import StopRequest, as_guest, exiting_at_once, stop_request
from milan_pipeline.errors import InterruptedRunError


def test_a_signal_of_any_process_is_everyones():
    alone, other = StopRequest(), StopRequest()
    other.signal_name = "SIGUSR1"

    def most(value):
        return max(value, signal.SIGUSR1)

    for request in (alone, other):
        with pytest.raises(InterruptedRunError, match="SIGUSR1 received; all is kept"):
            request.agreed(most).raise_if_asked("all is kept")
    assert alone.signal_name is None


def test_a_signal_that_comes_while_processes_agree_waits_for_the_next_time():
    request = StopRequest()

    def most(value):
        request.signal_name = "SIGTERM"
        return value

    assert request.agreed(most).signal_name is None
    assert request.agreed(most).signal_name == "SIGTERM"


def started(code):
    """Start a process, and wait until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


WAITING = """
import os
from milan_pipeline.core.interrupts import exiting_at_once, stop_request
with stop_request(), exiting_at_once("nothing was done"):
    print("ready", flush=True)
    os.read(0, 1)  # as a wait inside a library: Python would call it again after a signal
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_process_that_waits_before_it_begins_ends_at_once(number):
    with started(WAITING) as process:
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 75
    assert error == f"Interrupted: {number.name} received; nothing was done\n"


AT_WORK = """
import os
from milan_pipeline.core.interrupts import stop_request
with stop_request() as request:
    print("ready", flush=True)
    os.read(0, 1)
"""


def test_a_first_ctrl_c_asks_and_a_second_one_kills():
    with started(AT_WORK) as process:
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert "Ctrl-C again stops at once" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(600) == -signal.SIGINT


def test_after_a_block_ctrl_c_is_what_it_was():
    # Python's own handler, as it is in a command: packages that tests import may have set theirs.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_request() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signal_name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_after_the_block_a_signal_sets_the_flag_again():
    with stop_request() as request:
        with exiting_at_once("nothing"):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal_name == "SIGTERM"


def test_a_notebook_outlives_a_stop_while_there_is_nothing_to_keep():
    with as_guest(), stop_request() as request, exiting_at_once("nothing"):
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal_name == "SIGTERM"


def test_in_a_notebook_a_second_ctrl_c_raises():
    with as_guest(), stop_request() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signal_name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
