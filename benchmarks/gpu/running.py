"""Run each part in a process of its own, so that whatever happens to one hides nothing.

A part is a function of the setting, the figures of the parts before it, and a `Findings`, by which
it says each figure as soon as it is measured. All processes are forked from one that has imported
everything, which takes seconds; parts that only start processes run in the main process.
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


Message = tuple[str, str, float | None]


class Findings:
    """What a part finds, said at once.

    Args:
        say: takes each message.
    """

    def __init__(self, say: Callable[[Message], object]) -> None:
        self._say = say

    def figure(self, name: str, value: float) -> None:
        """Say a figure."""
        self._say((FIGURE, name, float(value)))

    def problem(self, text: str) -> None:
        """Say what is wrong; the part goes on."""
        self._say((PROBLEM, text, None))

    def not_run(self, reason: str) -> None:
        """Say that the part has nothing to run on here."""
        self._say((NOT_RUN, reason, None))

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
    return _judged(outcome)


def run_here(name: str, part: Part, setting: Setting, known: Figures, *, seconds: float) -> Outcome:
    """Run a part that only starts processes, which end after so many seconds at the latest."""
    outcome = Outcome(name=name)
    started = time.monotonic()
    until = dataclasses.replace(setting, until=started + seconds)
    _do(Findings(functools.partial(_take, outcome)), part, until, known)
    outcome.seconds = time.monotonic() - started
    return _judged(outcome)


def _judged(outcome: Outcome) -> Outcome:
    if outcome.problems and outcome.state == OK:
        outcome.state = FAILED
    return outcome


def _take(outcome: Outcome, message: Message) -> bool:
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
    setting.begin()
    _do(Findings(connection.send), part, setting, known)
    connection.send((END, "", None))


def _do(findings: Findings, part: Part, setting: Setting, known: Figures) -> None:
    try:
        with findings.going_on("the part ended"):
            part(setting, known, findings)
    except NotRunError as reason:
        findings.not_run(str(reason))


def run_child(
    function: Callable[..., None], setting: Setting, *more: Any, **options: Any
) -> int | None:
    """Call a function in a process of its own; return its exit code, None if it hangs."""
    return run_children(functools.partial(function, **options), [(setting, *more)])[0]


def run_children(
    function: Callable[..., None], arguments: Sequence[tuple[Setting, *tuple[Any, ...]]]
) -> list[int | None]:
    """Call a function in several processes at once; return exit codes, None of one that hangs.

    Args:
        function: takes a setting and more.
        arguments: of each process.
    """
    started = [CONTEXT.Process(target=_prepared, args=(function, *each)) for each in arguments]
    for process in started:
        process.start()
    codes = []
    for process, (setting, *_) in zip(started, arguments, strict=True):
        process.join(max(0.0, min(PATIENCE, setting.until - time.monotonic())))
        codes.append(process.exitcode)
        process.kill()
    return codes


def _prepared(function: Callable[..., None], setting: Setting, *more: Any) -> None:
    setting.begin()
    function(setting, *more)
