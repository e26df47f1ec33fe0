"""What is true of processes by their reports, and of an output by its processes."""

import dataclasses

import pytest

from milan_pipeline.core.process_marks import this_process
from milan_pipeline.provenance.progress_reports import (
    DEAD_AFTER,
    ProgressReport,
    processes_of,
    state_of_work,
)
from milan_pipeline.provenance.record import utc_text

NOW = 1_000_000.0
LIVES = this_process()
DEAD = dataclasses.replace(LIVES, began="1")
AWAY = dataclasses.replace(LIVES, host="another")


def report(state="running", process=LIVES, ago=0.0, unit="view-00/x-0") -> ProgressReport:
    return ProgressReport(
        name="single", state=state, process=process, started=utc_text(0),
        heard=utc_text(NOW - ago), unit=unit, units=4, units_done=1, images_done=8,
        images_per_second=2.0, failed={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (report(), "running"),
        (report("stopping"), "running"),
        (report(ago=DEAD_AFTER + 1), "running"),  # a long piece of work
        (report(ago=DEAD_AFTER + 1, unit=None), "left"),
        (report(process=DEAD), "dead"),
        (report("stopping", DEAD), "interrupted"),
        (report("done", DEAD), "done"),
        (report("failed", DEAD), "failed"),
        (report(process=AWAY, ago=DEAD_AFTER), "running"),
        (report(process=AWAY, ago=DEAD_AFTER + 1), "dead"),
        (report("stopping", AWAY, DEAD_AFTER + 1), "interrupted"),
    ],
)
def test_a_process(said: ProgressReport, state: str) -> None:
    assert processes_of([said], NOW)[0].state == state


@pytest.mark.parametrize(
    ("reports", "state"),
    [
        ([], "left"),
        ([report("done")], "left"),
        ([report(process=DEAD), report()], "running"),
        ([report("failed", ago=5), report(process=DEAD, ago=9)], "failed"),
        ([report("interrupted", ago=9), report(process=DEAD, ago=5)], "dead"),
    ],
)
def test_an_output(reports: list[ProgressReport], state: str) -> None:
    processes = processes_of(reports, NOW)
    assert state_of_work(processes, done=False)[0] == state
    assert state_of_work(processes, done=True)[0] == "done"
