"""The reporter: what a process says of itself, how often, and that it never fails for it."""

import dataclasses
import json
import signal
import threading
from pathlib import Path

import pytest

from milan_pipeline.core.console import NOTE
from milan_pipeline.core.interrupts import StopRequest, stop_request
from milan_pipeline.core.process_marks import this_process
from milan_pipeline.errors import DataError, InterruptedRunError
from milan_pipeline.provenance.progress_reports import ProgressReport, read_reports
from milan_pipeline.provenance.reporter import WRITE_EVERY, Reporter, closing_report, reporting
from tests.support.disturbances import at_put
from tests.support.remote import Request, failing, noting, watched
from tests.support.stores import UNITS


class Clock:
    """Seconds since 1970, as a test says."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(tmp_path: Path, clock: Clock) -> Reporter:
    return Reporter(str(tmp_path), "part-000-of-002", units=3, clock=clock)


def only(store: Path, reporter: Reporter) -> ProgressReport:
    reporter.wait()
    (report,) = read_reports(str(store))
    return report


def test_a_report_follows_the_work(reporter: Reporter, clock: Clock, tmp_path: Path) -> None:
    assert read_reports(str(tmp_path)) == []
    reporter.begin(UNITS[0].path)
    assert only(tmp_path, reporter) == ProgressReport(
        name="part-000-of-002", state="running", process=this_process(),
        started="1970-01-12T13:46:40Z",
        heard="1970-01-12T13:46:40Z", unit="view-00/x-0", units=3, units_done=0, images_done=0,
        images_per_second=0.0, failed={},
    )  # fmt: skip
    clock.now += 4
    reporter.images(8)
    reporter.end(UNITS[0].path)
    reporter.begin(UNITS[1].path)
    assert only(tmp_path, reporter).units_done == 0  # said a moment ago
    clock.now += WRITE_EVERY
    reporter.images(60)
    report = only(tmp_path, reporter)
    assert (report.unit, report.units_done, report.images_done) == ("view-00/x-1", 1, 68)
    assert report.images_per_second == 2
    assert (report.heard_at, report.seconds) == (clock.now, 34)
    reporter.end(UNITS[1].path)
    reporter.close("done")
    assert only(tmp_path, reporter).state == "done"
    assert only(tmp_path, reporter).unit is None


def test_within_a_unit_it_is_written_now_and_then(
    reporter: Reporter, clock: Clock, tmp_path: Path
) -> None:
    reporter.begin(UNITS[0].path)
    seen = set()
    for _ in range(10):
        clock.now += WRITE_EVERY / 4
        reporter.images(15)
        seen.add(only(tmp_path, reporter).images_done)
    assert seen == {0, 60, 120}


def test_the_speed_is_that_of_late(reporter: Reporter, clock: Clock, tmp_path: Path) -> None:
    reporter.begin(UNITS[0].path)
    for images in (300, 0, 600):
        clock.now += WRITE_EVERY
        reporter.images(images)
    assert only(tmp_path, reporter).images_per_second == 20


@pytest.mark.parametrize(
    ("error", "state", "failed"),
    [
        (InterruptedRunError("stopped"), "interrupted", {}),
        (DataError("x.tar is\n damaged"), "failed", {"view-00/x-0": "x.tar is damaged"}),
    ],
)
def test_it_says_how_the_work_ended(
    reporter: Reporter, tmp_path: Path, error: Exception, state: str, failed: dict[str, str]
) -> None:
    reporter.begin(UNITS[0].path)
    with pytest.raises(type(error)), closing_report(reporter):
        raise error
    assert only(tmp_path, reporter).state == state
    assert only(tmp_path, reporter).failed == failed


def test_a_second_ctrl_c_in_a_process_that_lives_on_ends_the_report(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    begun: set[threading.Thread] = set()

    def interrupted() -> None:
        with reporting(str(tmp_path), "pretrain", StopRequest()):
            begun.update(set(threading.enumerate()) - before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (living,) = (each for each in begun if each.name == "report-life")
    living.join(60)
    assert not living.is_alive()
    (report,) = read_reports(str(tmp_path))
    assert report.state == "interrupted"


def test_a_unit_that_is_done_after_all_has_not_failed(reporter: Reporter, tmp_path: Path) -> None:
    for _ in range(2):
        reporter.begin(UNITS[0].path)
        reporter.fail("away")
    assert only(tmp_path, reporter).failed == {"view-00/x-0": "away"}
    reporter.begin(UNITS[0].path)
    reporter.end(UNITS[0].path)
    reporter.close("done")
    assert (only(tmp_path, reporter).state, only(tmp_path, reporter).failed) == ("done", {})


def test_a_report_that_cannot_be_written_is_mentioned_once(
    reporter: Reporter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(NOTE)
    (tmp_path / "progress").write_text("no folder")
    for unit in UNITS[:2]:
        reporter.begin(unit.path)
        reporter.end(unit.path)
        reporter.wait()
    reporter.close("done")
    (said,) = caplog.messages
    assert said.startswith(f"Note: {tmp_path}/progress/part-000-of-002.json cannot be written")
    assert said.endswith("; `status` will not know of this process")


def test_the_work_does_not_wait_for_reports_and_the_newest_wins(
    clock: Clock, tmp_path: Path
) -> None:
    away, back, written = threading.Event(), threading.Event(), []
    reporter = Reporter(watched(tmp_path), "part-000-of-002", units=3, clock=clock)

    def hold(request: Request) -> None:
        away.set()
        assert back.wait(60)
        written.append(json.loads(request.data)["images_done"])

    with at_put(hold):
        reporter.begin(UNITS[0].path)
        assert away.wait(60)
        for _ in range(5):
            clock.now += WRITE_EVERY
            reporter.images(8)
        assert written == []
        back.set()
        reporter.close("done")
    assert set(written) == {0, 40}  # 8, 16, 24 and 32 were out of date
    assert only(tmp_path, reporter).state == "done"


def test_names_of_dask_workers_become_file_names(tmp_path: Path, clock: Clock) -> None:
    reporter = Reporter(str(tmp_path), "single-worker-tcp://10.0.0.1:80/", units=None, clock=clock)
    reporter.begin(UNITS[0].path)
    reporter.wait()
    assert [path.name for path in tmp_path.glob("progress/*")] == [
        "single-worker-tcp-10.0.0.1-80.json"
    ]
    assert only(tmp_path, reporter).units is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "x"}', "\xff"])
def test_reports_that_cannot_be_read_are_left_out(
    reporter: Reporter, tmp_path: Path, text: str
) -> None:
    reporter.begin(UNITS[0].path)
    good = only(tmp_path, reporter)
    (tmp_path / "progress/other.json").write_bytes(text.encode("latin-1"))
    assert only(tmp_path, reporter) == good
    more = json.dumps(dataclasses.asdict(good) | {"since": 1})
    (tmp_path / "progress/other.json").write_text(more)
    assert only(tmp_path, reporter) == good


def test_of_many_reports_only_those_that_are_asked_for_are_read(
    tmp_path: Path, clock: Clock
) -> None:
    for name in ("part-0", "part-1", "part-2"):
        Reporter(str(tmp_path), name, units=1, clock=clock).close("done")
    with noting("read") as reads:
        reports = read_reports(watched(tmp_path), {"part-1", "part-9"})
    assert [report.name for report in reports] == ["part-1"]
    assert len({request.path for request in reads}) == 1


def test_a_report_that_is_deleted_meanwhile_is_left_out(tmp_path: Path, clock: Clock) -> None:
    for name in ("part-0", "part-1"):
        Reporter(str(tmp_path), name, units=1, clock=clock).close("done")
    with failing("read", FileNotFoundError("part-0"), at="part-0"):
        assert [report.name for report in read_reports(watched(tmp_path))] == ["part-1"]


def test_a_stop_signal_is_noted_before_the_process_can_be_killed(tmp_path: Path) -> None:
    noted = threading.Event()

    def look(request: Request) -> None:
        if json.loads(request.data)["state"] == "stopping":
            noted.set()

    with (
        at_put(look),
        stop_request() as stop,
        reporting(watched(tmp_path), "pretrain", stop, units=4, done=1) as reporter,
    ):
        signal.raise_signal(signal.SIGINT)
        assert noted.wait(60)
        reporter.step(8)
    (report,) = read_reports(str(tmp_path))
    assert (report.state, report.units, report.units_done, report.images_done) == ("done", 4, 2, 8)


def test_a_signal_at_the_end_does_not_undo_how_it_ended(tmp_path: Path) -> None:
    stop = StopRequest()
    reporter = Reporter(str(tmp_path), "pretrain", units=1, stop=stop)
    stop.listeners[0]()  # the signal comes, and the thread that notes it is slow
    reporter.close("done")
    reporter._live()
    assert only(tmp_path, reporter).state == "done"
