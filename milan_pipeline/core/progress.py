"""Shows that work goes on: bars and clocks on a terminal or in a notebook, lines in a log."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import click
from tqdm import tqdm

from milan_pipeline.core.console import is_quiet

LOG_EVERY = 60.0
"""Seconds between two lines in a log."""
TICK = 1.0
"""Seconds between two looks at a clock."""
LINE = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
    "[{elapsed}<{remaining}, {rate_noinv_fmt}]"
)
"""The rate is images a second, always: tqdm would write a slow one as seconds an image."""
LOG_LINE = (
    "{desc}: {n_fmt} of {total_fmt}{unit}, {rate_noinv_fmt}, {elapsed} so far, {remaining} left"
)
CLOCK = "{desc}: {elapsed}"
NOTEBOOKS = "ipykernel."
"""The package of the streams that a notebook's process writes to."""


class _Logged(tqdm):  # type: ignore[type-arg]
    """A bar where there is no terminal: a line a minute, and a last one after such lines."""

    def __init__(self, **settings: Any) -> None:
        self._told, self._is_long = time.monotonic(), False
        super().__init__(mininterval=TICK, **settings)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line if the last one is old."""
        del msg, pos
        if time.monotonic() - self._told >= LOG_EVERY:
            self._tell()

    def clear(self, nolock: bool = False) -> None:
        """Leave lines that are written as they are."""

    def close(self) -> None:
        """Write a last line, where there were others."""
        if not self.disable and self._is_long:
            self._tell()
        self.delay = float("inf")  # there is nothing to wipe out
        super().close()

    def _tell(self) -> None:
        """Write a line as it is: there are no bars to make room, and to be written in turn."""
        self._told, self._is_long = time.monotonic(), True
        click.echo(str(self), err=True)


def progress_bar(
    description: str, *, total: int, initial: int = 0, shown: bool = True, unit: str = "images"
) -> "tqdm[Any]":
    """Open a progress bar with the count, the rate and the time left; in a log, a line a minute.

    It stays one line, however narrow the terminal is or becomes.
    """
    lines = (LINE, LOG_LINE)
    return _bar(description, lines, shown, total=total, initial=initial, unit=f" {unit}")


@contextlib.contextmanager
def waiting(description: str, *, shown: bool = True) -> Iterator[None]:
    """Show a clock while the block runs, if that takes more than a second."""
    bar = _bar(description, (CLOCK, CLOCK), shown, delay=TICK, leave=False)
    with bar, ticking(bar):
        yield


@contextlib.contextmanager
def ticking(bar: "tqdm[Any]") -> Iterator[None]:
    """Keep a bar's clock going while the block runs, also where one step takes long."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(TICK):
            bar.refresh()

    thread = threading.Thread(target=tick, daemon=True, name="clock")
    if not bar.disable:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if not bar.disable:
            thread.join()
            if not bar.leave:
                bar.clear()


def redraws_lines(stream: Any) -> bool:
    """Tell whether a stream shows what follows a carriage return in place of the line.

    A terminal does, and so does a cell of a Jupyter notebook, whose stream is no terminal.
    """
    if stream is None:
        return False
    return stream.isatty() or type(stream).__module__.startswith(NOTEBOOKS)


def _bar(description: str, lines: tuple[str, str], shown: bool, **settings: Any) -> "tqdm[Any]":
    """Open what suits standard error, given the forms of a line that is redrawn and in a log."""
    redraws = redraws_lines(sys.stderr)
    kind: type[tqdm[Any]] = tqdm if redraws else _Logged
    return kind(
        desc=description,
        bar_format=lines[not redraws],
        dynamic_ncols=True,
        disable=not shown or is_quiet() or sys.stderr is None,
        **settings,
    )
