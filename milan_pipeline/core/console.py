"""What a command prints: its summary or report on standard output, all else on standard error.

    by default    summary lines or the report; also notes, warnings and progress bars
    --quiet       the report of a command that reports; also errors
    --verbose     also what is done to each unit and shard, by Python's logging
    --debug       also what is read and written, and the traceback of an error
    --json        one JSON document on standard output; also the lines, unless --quiet

Only stages print, and only by the functions here. The library logs by
`logging.getLogger(__name__)`: a record of level NOTE or WARNING is printed as by `note` and `warn`.
Here are also functions that write sizes and tables; for progress bars see `core.progress`.
"""

import contextlib
import dataclasses
import enum
import errno
import json
import logging
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click
from tqdm import tqdm

from milan_pipeline.core.counting import counted
from milan_pipeline.errors import StorageError, reason_of

LOGGER = "milan_pipeline"
"""The package whose logs are printed; logging of other packages is left as it is."""


class Verbosity(enum.IntEnum):
    """How much is printed."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2
    DEBUG = 3


NOTE = 25
"""The level of log records that are of use to any user, though nothing is wrong."""
PREFIXES = {NOTE: "", logging.WARNING: "Warning: ", logging.ERROR: "Error: "}
LEVELS = {
    Verbosity.QUIET: logging.ERROR,
    Verbosity.NORMAL: NOTE,
    Verbosity.VERBOSE: logging.INFO,
    Verbosity.DEBUG: logging.DEBUG,
}


@dataclasses.dataclass
class Document:
    """What --json prints.

    Attributes:
        value: the facts of the summary, or the report's document; empty where there are none.
        is_printed: whether it need not be printed any more.
    """

    value: Any = dataclasses.field(default_factory=dict)
    is_printed: bool = False


@dataclasses.dataclass
class _Output:
    """How the command that runs prints, and the document of what it says."""

    verbosity: Verbosity = Verbosity.NORMAL
    as_json: bool = False
    document: Document = dataclasses.field(default_factory=Document)


_BREAKS = re.compile("[\x00-\x08\n-\x1f\x7f-\x9f\u2028\u2029]")

_output = _Output()  # of the process, its threads included; `output` alone changes it


@contextlib.contextmanager
def output(verbosity: Verbosity, *, as_json: bool = False) -> Iterator[Document]:
    """Set how much is printed inside the block; at its end, `as_json` prints the document.

    Yields:
        The document, which is complete at the end of the block, whether it is printed or not.
    """
    before, document = dataclasses.replace(_output), Document()
    _output.verbosity, _output.as_json, _output.document = verbosity, as_json, document
    try:
        with _logging(LEVELS[verbosity]):
            yield document
        if as_json and document.value and not document.is_printed:
            _print(json.dumps(document.value, indent=1))
    finally:
        _output.verbosity, _output.as_json, _output.document = (
            before.verbosity, before.as_json, before.document,
        )  # fmt: skip


def say(text: str, **facts: Any) -> None:
    """Say a line of a summary; its facts join the document."""
    if not is_quiet():
        _print(text, err=_output.as_json)
    _output.document.value |= facts


def say_counts(
    place: str, counts: Mapping[str, Any], *, named: Mapping[str, str] | None = None
) -> None:
    """Say what a stage has done: "PLACE: 3 units, 1 units done now".

    Args:
        place: of its output.
        counts: how many of what.
        named: which they are, of some counts: "2 classes (cat, dog)".
    """
    which = {name: f" ({names})" for name, names in (named or {}).items() if names}
    words = (
        f"{counted(value, name.replace('_', ' '))}{which.get(name, '')}"
        for name, value in counts.items()
    )
    say(f"{place}: {', '.join(words)}", out=place, **counts)


def say_nothing_to_do(place: str, why: str, **facts: Any) -> None:
    """Say that an output is complete already; what is known of it joins the document."""
    say(f"{place}: nothing to do, {why}", out=place, nothing_to_do=True, **facts)


def report(lines: Iterable[str] = (), document: Any = None) -> None:
    """Print a command's report: its lines and, with --json, its one document.

    Lines may come in several calls, the document in the last of them.
    """
    if not (_output.as_json and is_quiet()):
        for line in lines:
            _print(one_line(line), err=_output.as_json)
    if document is not None:
        _output.document.value, _output.document.is_printed = document, True
        if _output.as_json:
            _print(json.dumps(document, indent=1))


def note(text: str) -> None:
    """Say on standard error what may be of use."""
    if not is_quiet():
        _print(text, err=True)


def warn(text: str) -> None:
    """Say on standard error what may be wrong, though the command goes on."""
    note(f"Warning: {text}")


def is_quiet() -> bool:
    """Tell whether only reports and errors are printed."""
    return _output.verbosity is Verbosity.QUIET


def is_verbose() -> bool:
    """Tell whether what is done to each unit is printed, too."""
    return _output.verbosity >= Verbosity.VERBOSE


def is_json() -> bool:
    """Tell whether a JSON document is to be printed in place of lines."""
    return _output.as_json


def one_line(text: str) -> str:
    """Return a text with escapes for line breaks and control characters, which file names may hold.

    So a name of a folder can neither end the line that it stands in, nor steer the terminal.
    """
    return _BREAKS.sub(lambda found: repr(found[0])[1:-1], text)


def fits_terminal(text: str) -> bool:
    """Tell whether all lines fit the terminal; true where standard output is none, or is closed."""
    if sys.stdout is None or not sys.stdout.isatty():
        return True
    return max(map(len, text.splitlines())) <= shutil.get_terminal_size().columns


def output_words() -> list[str]:
    """Return the options by which another process prints as much as this one."""
    asked = _output.verbosity
    words = [] if asked is Verbosity.NORMAL else [f"--{asked.name.lower()}"]
    return [*words, "--json"] if _output.as_json else words


def _print(text: str, *, err: bool = False) -> None:
    with tqdm.external_write_mode():  # bars make room and come back below
        try:
            click.echo(text, err=err)
        except OSError as error:
            # One who reads no further has closed the pipe; click ends the command then.
            if err or error.errno == errno.EPIPE:
                raise
            raise StorageError(
                f"standard output cannot be written ({reason_of(error)}); make room there, or send "
                "it to another place"
            ) from error


class _BesideBars(logging.Handler):
    """Writes log records to standard error, above progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; notes, warnings and errors look as those of stages do."""
        prefix = PREFIXES.get(record.levelno)
        text = self.format(record) if prefix is None else f"{prefix}{record.getMessage()}"
        _print(text, err=True)


@contextlib.contextmanager
def _logging(level: int) -> Iterator[None]:
    handler = _BesideBars()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger = logging.getLogger(LOGGER)
    before, propagated = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False  # else the root logger's handlers would print it again
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagated


STEPS = ("kB", "MB", "GB", "TB", "PB")


def short_bytes(size: float) -> str:
    """Return a size in a rounded unit, by powers of 1000: "1.3 GB"."""
    if size < 1000:
        return f"{size:.4g} bytes"
    step = -1
    while size >= 999.95 and step < len(STEPS) - 1:
        size, step = size / 1000, step + 1
    return f"{size:.3g} {STEPS[step]}" if size < 999.5 else f"{size:.0f} {STEPS[step]}"


def bytes_text(size: int) -> str:
    """Return a size exactly and in a rounded unit: "1312345678 (1.31 GB)"."""
    return f"{size}" if size < 1000 else f"{size} ({short_bytes(size)})"


def named_lines(pairs: Iterable[tuple[str, str]], *, width: int = 0) -> list[str]:
    """Return a line for each name and value, values below each other; empty ones are left out.

    Args:
        pairs: names and values.
        width: of the names, at least.
    """
    kept = [(name, value) for name, value in pairs if value]
    width = max([width, *(len(name) for name, _ in kept)])
    return [f"{name:<{width}}  {value}" for name, value in kept]


def aligned(rows: Sequence[Sequence[str]], *, gap: int = 3) -> list[str]:
    """Return a table's lines: the first column aligned to the left, the others to the right.

    Args:
        rows: the cells of each line, headings first.
        gap: spaces between columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (" " * gap).join(
            f"{cell:{'>' if number else '<'}{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
