"""Signalled as terminals and schedulers do it, stages end in order and leave nothing behind."""

import os
import signal

import pytest

from tests.faults import jobs
from tests.faults.campaign import SCALE
from tests.faults.leftovers import files_open_after
from tests.faults.sameness import progress
from tests.faults.stops import gone_on, stop_and_go_on
from tests.faults.victims import CONTEXT, PATIENCE
from tests.support.processes import children

EVERY = (
    *(jobs.PACK_IMAGES, jobs.EXTRACT, jobs.EXTRACT_PARTS, jobs.PACK_TARGETS, jobs.TRANSCODE),
    *(jobs.PRETRAIN, jobs.FINETUNE, jobs.SEGMENT),
)
STOPPED = EVERY if SCALE == "whole" else (jobs.EXTRACT, jobs.PRETRAIN)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS, ids=[number.name for number in SIGNALS])
@pytest.mark.parametrize("job", STOPPED, ids=[job.name for job in STOPPED])
def test_all_processes_of_a_stage_are_signalled(job, number, inputs, tmp_path) -> None:
    stop_and_go_on(job, number, inputs, tmp_path / "out")


@pytest.mark.parametrize("job", STOPPED, ids=[job.name for job in STOPPED])
def test_ctrl_c_leaves_no_file_open(job, inputs, tmp_path) -> None:
    """A process that runs a stage again and again, stopped each time, has no more files each time.

    The first time it opens what it keeps, such as the loop of an event.
    """
    outs = [tmp_path / str(number) for number in range(3)]
    commands = [[str(word) for word in job.commands(inputs, out)[0]] for out in outs]
    begun = min(20, progress(inputs.undisturbed(job).out) // 3)
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=files_open_after, args=(commands, outs, begun, theirs))
    process.start()
    theirs.close()
    assert ours.poll(PATIENCE), "it hangs"
    codes, counts = ours.recv()
    process.join(PATIENCE)
    assert codes == [75, 75, 75]
    assert counts[2] <= counts[1]


def test_a_killed_loader_process_ends_a_run_that_goes_on_when_run_again(inputs, tmp_path) -> None:
    job, out = jobs.PRETRAIN, tmp_path / "run"
    with job.start(inputs, out) as victims:
        victims.at_work(lambda: progress(out) >= 20)
        os.kill(children(victims.pids[0])[0], signal.SIGKILL)
        assert victims.codes() == [1]
    assert "Error: a loader process died" in victims.said()
    assert not gone_on(job, inputs, out)


def test_a_run_whose_main_process_was_killed_goes_on_at_once(inputs, tmp_path) -> None:
    """Its loader processes, which nobody signals, do not hold its folder."""
    job, out = jobs.PRETRAIN, tmp_path / "run"
    with job.start(inputs, out) as victims:
        victims.at_work(lambda: progress(out) >= 20)
        os.kill(victims.pids[0], signal.SIGKILL)
        assert victims.codes() == [-signal.SIGKILL]
    assert not gone_on(job, inputs, out)
