"""What a command says: its summary or report on standard output, all else on standard error.

    as it comes   summary lines or the report; beside them notes, warnings and progress bars
    --quiet       the report of a command that reports; beside it errors
    --verbose     also what is done to each unit and shard, by Python's logging
    --debug       also what is read and written, and the traceback of an error
    --json        one JSON document on standard output, and beside it the lines, unless --quiet

Library and stages say nothing but through here, and log by `logging.getLogger(__name__)`.

One progress bar for everything that takes more than a few seconds.

Numbers in words.
"""

import contextlib
import dataclasses
import enum
import json
import logging
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click
from tqdm import tqdm

LOGGERS = ("milan_pipeline", "stages")
"""Whose logs are shown; those of other packages are as they were."""


class Loudness(enum.IntEnum):
    """How much is said."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2
    DEBUG = 3


LEVELS = {
    Loudness.QUIET: logging.ERROR,
    Loudness.NORMAL: logging.WARNING,
    Loudness.VERBOSE: logging.INFO,
    Loudness.DEBUG: logging.DEBUG,
}


@dataclasses.dataclass
class _Manner:
    """How the command that runs speaks, and the facts that its document will have."""

    loudness: Loudness = Loudness.NORMAL
    as_json: bool = False
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


_manner = _Manner()  # of the process, its threads included; `speaking` alone changes it


@contextlib.contextmanager
def speaking(loudness: Loudness, *, as_json: bool = False) -> Iterator[None]:
    """Speak in one manner inside the block; at its end, print the facts that JSON was asked of."""
    before = dataclasses.replace(_manner)
    _manner.loudness, _manner.as_json, _manner.facts = loudness, as_json, {}
    try:
        with _logging(LEVELS[loudness]):
            yield
        if _manner.facts:
            _print(json.dumps(_manner.facts, indent=1))
    finally:
        _manner.loudness, _manner.as_json, _manner.facts = (
            before.loudness, before.as_json, before.facts,
        )  # fmt: skip


def say(text: str, **facts: Any) -> None:
    """Say a line of a summary; with --json, its facts join the document."""
    if not is_quiet():
        _print(text, err=_manner.as_json)
    if _manner.as_json:
        _manner.facts |= facts


def say_counts(place: str, counts: Mapping[str, Any]) -> None:
    """Say what a stage has done: "PLACE: 3 units, 1 units done now"."""
    words = (f"{value} {name.replace('_', ' ')}" for name, value in counts.items())
    say(f"{place}: {', '.join(words)}", out=place, **counts)


def say_nothing_to_do(place: str, why: str) -> None:
    """Say that a place holds already what it is to hold."""
    say(f"{place}: nothing to do, {why}", out=place, nothing_to_do=True)


def report(lines: Iterable[str] = (), document: Any = None) -> None:
    """Print what a command is there to print: its lines and, with --json, its one document.

    Lines may come in several calls, the document in the last of them.
    """
    if not (_manner.as_json and is_quiet()):
        for line in lines:
            _print(line, err=_manner.as_json)
    if _manner.as_json and document is not None:
        _print(json.dumps(document, indent=1))


def note(text: str) -> None:
    """Say on standard error what may be of use."""
    if not is_quiet():
        _print(text, err=True)


def warn(text: str) -> None:
    """Say on standard error what may be wrong, though the command goes on."""
    note(f"Warning: {text}")


def is_quiet() -> bool:
    """Tell whether nothing but reports and errors is to be seen."""
    return _manner.loudness is Loudness.QUIET


def is_json() -> bool:
    """Tell whether a JSON document is to be printed in place of lines."""
    return _manner.as_json


def fits_terminal(text: str) -> bool:
    """Tell whether no line is wider than the terminal that it is for; off a terminal none is."""
    if not sys.stdout.isatty():
        return True
    return max(map(len, text.splitlines())) <= shutil.get_terminal_size().columns


def manner_words() -> list[str]:
    """Return the words of a command line that has another process speak as this one does."""
    loud = _manner.loudness
    words = [] if loud is Loudness.NORMAL else [f"--{loud.name.lower()}"]
    return [*words, "--json"] if _manner.as_json else words


def _print(text: str, *, err: bool = False) -> None:
    with tqdm.external_write_mode():  # bars make room and come back below
        click.echo(text, err=err)


class _BesideBars(logging.Handler):
    """Writes to the standard error of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        _print(self.format(record), err=True)


@contextlib.contextmanager
def _logging(level: int) -> Iterator[None]:
    handler = _BesideBars()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False  # or handlers that other packages give the root say it again
    try:
        yield
    finally:
        for logger, (old_level, propagated) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(old_level)
            logger.propagate = propagated


LINE = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
    "[{elapsed}<{remaining}, {rate_noinv_fmt}]"
)
"""Seconds an image would be another unit than images a second, so the rate is never turned over."""


def progress_bar(
    description: str, *, total: int, initial: int = 0, shown: bool = True, unit: str = "images"
) -> "tqdm[Any]":
    """Open a bar that counts, shows the rate and the time left; silent off a terminal.

    It stays one line, however narrow the terminal is or becomes.
    """
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        unit=f" {unit}",
        bar_format=LINE,
        dynamic_ncols=True,
        disable=None if shown and not is_quiet() else True,
    )


STEPS = ("kB", "MB", "GB", "TB", "PB")


def short_bytes(size: float) -> str:
    """Return a size as people say it: "1.3 GB", by powers of 1000."""
    if size < 1000:
        return f"{size:.4g} bytes"
    step = -1
    while size >= 999.95 and step < len(STEPS) - 1:
        size, step = size / 1000, step + 1
    return f"{size:.3g} {STEPS[step]}" if size < 999.5 else f"{size:.0f} {STEPS[step]}"


def bytes_text(size: int) -> str:
    """Return a size exactly and as people say it: "1312345678 (1.31 GB)"."""
    return f"{size}" if size < 1000 else f"{size} ({short_bytes(size)})"
