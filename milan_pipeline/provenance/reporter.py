"""Writes the report of a process that works on an output; see `progress_reports`.

If a report cannot be written, this is said once and the work goes on. Reports claim, lock and count
nothing.

A thread of its own writes the reports, since each write may take minutes if the store does not
answer. Only the last report is waited for. Another thread says again and again that the process
lives, also where one piece of work takes long, and notes a stop signal as soon as it comes: a
process that a second Ctrl-C kills has no time to say so.
"""

import contextlib
import dataclasses
import json
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from milan_pipeline import storage
from milan_pipeline.core.console import NOTE
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.process_marks import this_process
from milan_pipeline.errors import InterruptedRunError, StorageError, reason_of
from milan_pipeline.provenance.progress_reports import FOLDER, ProgressReport, Saying
from milan_pipeline.provenance.record import utc_text

logger = logging.getLogger(__name__)

WRITE_EVERY = 30.0  # seconds between two reports, the first and the last apart
RATE_SPAN = 10.0  # seconds at least that the present speed is measured over


class Reporter:
    """Keeps one process's report in the folder of its output."""

    def __init__(
        self,
        folder: str,
        name: str,
        *,
        units: int | None,
        stop: StopRequest | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start a report; nothing is written before the first unit begins.

        Args:
            folder: path or URL of the output.
            name: name of the process; the same when it runs again.
            units: how many it will do; None if they are handed out one by one.
            stop: of the process; the report says at once that a stop signal has come.
            clock: returns seconds since 1970.
        """
        self._name = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")
        self._url = storage.join(folder, FOLDER, f"{self._name}.json")
        self._clock = clock
        self._process = this_process()
        self._started = self._rated = clock()
        self._said: float | None = None
        self._units = units
        self._unit: str | None = None
        self._units_done = self._images = self._images_rated = 0
        self._rate = 0.0
        self._failed: dict[str, str] = {}
        self._complained = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._newest: bytes | None = None
        self._saying = threading.RLock()
        # A signal handler may put something into this queue whatever it interrupts.
        self._asked: queue.SimpleQueue[Saying | None] = queue.SimpleQueue()
        self._state: Saying = "running"
        self._closed = False
        if stop is not None:
            stop.listeners.append(lambda: self._asked.put("stopping"))

    def begin(self, unit: str) -> None:
        """Note that a unit begins; write a report if one is due."""
        self._unit = unit
        self._say_at_times()

    def images(self, count: int) -> None:
        """Count images of the present unit; write a report if one is due."""
        self._images += count
        self._say_at_times()

    def expect(self, units: int, done: int) -> None:
        """Say how many units there are, and how many of them are done."""
        self._units, self._units_done = units, done

    def step(self, images: int) -> None:
        """Count one of many small units, and its images; write a report if one is due."""
        self._units_done += 1
        self.images(images)

    def end(self, unit: str) -> None:
        """Count a unit as done."""
        self._units_done += 1
        self._failed.pop(unit, None)
        if self._unit == unit:
            self._unit = None

    def fail(self, reason: str) -> None:
        """Note that the present unit failed, and write that."""
        if self._unit is not None:
            self._failed[self._unit] = reason
        self._say("failed")
        self._unit = None

    def close(self, state: Saying) -> None:
        """Write how the work ended: done, interrupted or failed; wait until that is written."""
        self._asked.put(None)
        with self._saying:
            self._closed = True
            self._state = "failed" if self._failed else state
        self._say()
        self.wait()

    def wait(self) -> None:
        """Wait until the newest report is written, or writing it has failed."""
        self._writer.submit(self._write).result()

    def _say_at_times(self) -> None:
        if self._said is None:
            threading.Thread(target=self._live, daemon=True, name="report-life").start()
        if self._said is None or self._clock() - self._said >= WRITE_EVERY:
            self._say()

    def _live(self) -> None:
        """Say that the process lives, now and then, and that it was asked to stop."""
        while True:
            asked = None
            try:
                asked = self._asked.get(timeout=WRITE_EVERY)
            except queue.Empty:
                if self._unit is None:  # whoever waits for work has nothing to say
                    continue
            else:
                if asked is None:
                    return
            # A RuntimeError: Python ends, and starts no more writes.
            with contextlib.suppress(RuntimeError), self._saying:
                if self._closed:  # a signal came at the end; how the work ended is said already
                    return
                self._state = asked or self._state
                self._say()

    def _say(self, state: Saying | None = None) -> None:
        with self._saying:
            self._newest = self._report(state or self._state)
        self._writer.submit(self._write)

    def _report(self, state: Saying) -> bytes:
        """Return the report as it stands."""
        now = self._clock()
        if now - self._rated >= RATE_SPAN:
            self._rate = (self._images - self._images_rated) / (now - self._rated)
            self._rated, self._images_rated = now, self._images
        elif self._images_rated == 0 and now > self._rated:
            self._rate = self._images / (now - self._rated)
        self._said = now
        report = ProgressReport(
            name=self._name,
            state=state,
            process=self._process,
            started=utc_text(self._started),
            heard=utc_text(now),
            unit=self._unit,
            units=self._units,
            units_done=self._units_done,
            images_done=self._images,
            images_per_second=round(self._rate, 2),
            failed=self._failed,
        )
        return (json.dumps(dataclasses.asdict(report), indent=1) + "\n").encode()

    def _write(self) -> None:
        """Write the newest report, if it is not written yet; older ones are out of date."""
        with self._saying:
            data, self._newest = self._newest, None
        if data is None:
            return
        try:
            storage.put_bytes(self._url, data)
        except StorageError as error:
            if not self._complained:
                logger.log(NOTE, "Note: %s; `status` will not know of this process", error)
            self._complained = True


@contextlib.contextmanager
def reporting(
    folder: str, stage: str, stop: StopRequest, *, units: int | None = None, done: int = 0
) -> Iterator[Reporter]:
    """Report that a stage is at work in a folder while the block runs; see `Reporter`.

    Args:
        folder: path or URL of its output.
        stage: the command, which is what `Reporter` calls the unit in hand.
        stop: of the process.
        units: how many there are, if that is known yet.
        done: how many of them were done before.
    """
    reporter = Reporter(folder, stage, units=units, stop=stop)
    if units is not None:
        reporter.expect(units, done)
    reporter.begin(stage)
    with closing_report(reporter):
        yield reporter


@contextlib.contextmanager
def closing_report(reporter: Reporter) -> Iterator[Reporter]:
    """Write how the block ended; the report of a killed process keeps the state running."""
    try:
        yield reporter
    except InterruptedRunError:
        reporter.close("interrupted")
        raise
    except Exception as error:
        reporter.fail(reason_of(error))
        reporter.close("failed")
        raise
    except BaseException:  # a second Ctrl-C in a notebook, whose process lives on
        reporter.close("interrupted")
        raise
    reporter.close("done")
