"""Run each part in a process of its own, so that whatever happens to one hides nothing.

A part is a function of the setting, the figures of the parts before it, and a `Findings`, by which
it says each figure as soon as it is measured.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.gpu.setting import Setting
from milan_pipeline.errors import reason_of

CONTEXT = multiprocessing.get_context("forkserver")
"""Forked from a process that has imported torch once and has not touched the GPU."""
PRELOADED = ["benchmarks.gpu.parts"]
FIGURE, PROBLEM, NOT_RUN, END = "figure", "problem", "not run", "end"
OK, FAILED = "ok", "failed"
POLL = 0.5
PATIENCE = 100.0
"""Seconds that a part waits for a process that it has started."""

Figures = Mapping[str, float]


class NotRunError(Exception):
    """A part has nothing to run on here."""


class Findings:
    """What a part finds, sent at once to the process that started it."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection

    def figure(self, name: str, value: float) -> None:
        """Say a figure."""
        self._connection.send((FIGURE, name, float(value)))

    def problem(self, text: str) -> None:
        """Say what is wrong; the part goes on."""
        self._connection.send((PROBLEM, text, None))

    def check(self, name: str, value: float, *, least: float = 0.0, most: float = 0.0) -> None:
        """Say a figure, and that it is wrong unless it is at least or at most what is given."""
        self.figure(name, value)
        if least and not value >= least:
            self.problem(f"{name} is {value:.8g}, below {least:g}")
        if most and not value <= most:
            self.problem(f"{name} is {value:.8g}, above {most:g}")

    @contextlib.contextmanager
    def going_on(self, what: str) -> Iterator[None]:
        """Have an error of the block be a problem of the part, which goes on after it."""
        try:
            yield
        except NotRunError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next figure is measured
            traceback.print_exc()
            self.problem(f"{what}: {type(error).__name__}: {reason_of(error)[:300]}")


Part = Callable[[Setting, Figures, Findings], None]


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What became of a part.

    Attributes:
        name: of the part.
        state: "ok", "failed" or "not run".
        figures: by name.
        problems: what is wrong, or why it was not run.
        seconds: that it took.
    """

    name: str
    state: str = OK
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def run_part(name: str, part: Part, setting: Setting, known: Figures, *, seconds: float) -> Outcome:
    """Run a part in a process of its own; kill it if it takes longer than so many seconds."""
    outcome = Outcome(name=name)
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_serve, args=(theirs, part, setting, dict(known)))
    started = time.monotonic()
    process.start()
    theirs.close()
    ended = False
    while not ended and time.monotonic() - started < seconds:
        try:
            if ours.poll(POLL):
                ended = _take(outcome, ours.recv())
        except EOFError:
            break
    outcome.seconds = time.monotonic() - started
    if not ended:
        late = outcome.seconds >= seconds
        if late:
            process.kill()
        process.join()
        code = process.exitcode
        outcome.problems.append(
            f"stopped after {seconds:.0f} s" if late else f"its process ended with {code}"
        )
    process.join()
    if outcome.problems and outcome.state == OK:
        outcome.state = FAILED
    return outcome


def _take(outcome: Outcome, message: tuple[str, str, float | None]) -> bool:
    """Note a message; return whether it is the last."""
    kind, text, value = message
    if kind == FIGURE and value is not None:
        outcome.figures[text] = value
    elif kind == PROBLEM:
        outcome.problems.append(text)
    elif kind == NOT_RUN:
        outcome.state = NOT_RUN
        outcome.problems.append(text)
    return kind == END


def _serve(
    connection: "Connection[Any, Any]", part: Part, setting: Setting, known: Figures
) -> None:
    findings = Findings(connection)
    try:
        with findings.going_on("the part ended"):
            setting.begin()
            part(setting, known, findings)
    except NotRunError as reason:
        connection.send((NOT_RUN, str(reason), None))
    connection.send((END, "", None))


def run_child(function: Callable[..., None], *arguments: Any, **options: Any) -> int | None:
    """Call a function in a process of its own; return its exit code, None if it hangs."""
    return run_children(functools.partial(function, **options), [arguments])[0]


def run_children(
    function: Callable[..., None], arguments: Sequence[Sequence[Any]]
) -> list[int | None]:
    """Call a function in several processes at once; return exit codes, None of one that hangs."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    started = [CONTEXT.Process(target=_prepared, args=(function, each)) for each in arguments]
    for process in started:
        process.start()
    codes = []
    for process in started:
        process.join(PATIENCE)
        codes.append(process.exitcode)
        process.kill()
    return codes


def _prepared(function: Callable[..., None], arguments: Sequence[Any]) -> None:
    for setting in arguments:
        if isinstance(setting, Setting):
            setting.begin()
    function(*arguments)
