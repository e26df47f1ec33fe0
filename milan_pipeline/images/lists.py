"""A list of images: one path a line, then optionally a tab and a class, by number or by name."""

import dataclasses
import os
import re
import stat
import unicodedata
from pathlib import Path

from milan_pipeline.errors import DataError, StorageError
from milan_pipeline.images.file_faults import fault_of, is_link, shortened
from milan_pipeline.images.formats import HEAD_BYTES, kind_by_bytes
from milan_pipeline.images.spelling import ONE_FORM, require_distinct
from milan_pipeline.storage.retries import retried

MOST_CLASSES = 1_000_000
"""A higher number is an identifier; a classifier would need an output for each one below it."""
LINE_END = re.compile(r"\r\n|\n|\r")
NUMBER_LIKE = re.compile(r"[-+.,\d]*\d[.,\d]*")
FORM = "write a path a line, then optionally a tab and a class"
NO_LISTS = {
    ".csv": "of a CSV table write the column of paths alone, a path a line",
    ".json": "of JSON write the paths alone, a path a line",
    ".jsonl": "of JSON write the paths alone, a path a line",
}
"""What helps where the ending of a list's name says that it is none."""
TAR_MARK, TAR_MARK_AT = b"ustar", 257
ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ", b"BZh")


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """An image of a list: its name as it is written there, its path, bytes and class number."""

    name: str
    path: Path
    size: int
    label: int | None


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of a list, for what is wrong with it."""

    path: Path
    number: int
    text: str
    name: str
    label: str

    def error(self, what: str, remedy: str, *, of: str | None = None) -> DataError:
        quoted = shortened(self.name if of is None else of)
        return DataError(f"{self.path} line {self.number}: '{quoted}' {what}; {remedy}")


def read_list(path: Path) -> tuple[list[Listed], list[str]]:
    """Read a list.

    Returns:
        The images, and the names of the classes that the labels number, in sorted order; none
        where the list itself has numbers.

    Raises:
        DataError: it is no text, or a line of it cannot be used, which is named.
    """
    lines, files = [], []
    seen: dict[str, int] = {}
    for number, text in enumerate(LINE_END.split(_text_of(path)), start=1):
        name, _, label = text.partition("\t")
        if not name.strip():
            continue
        line = _Line(path, number, text, name, label.strip())
        file, size = _file_of(line)
        first = seen.setdefault(os.path.normpath(file), number)
        if first != number:
            raise line.error(f"comes twice, first in line {first}", "take one of them out")
        lines.append(line)
        files.append((file, size))
    classes = _classes(lines)
    numbers = {name: number for number, name in enumerate(classes)}
    listed = [
        Listed(line.name, *file, numbers.get(line.label) if classes else _number(line.label))
        for line, file in zip(lines, files, strict=True)
    ]
    return listed, classes


def _text_of(path: Path) -> str:
    """Return the text of a list; the names of files need not be UTF-8, so that no byte is lost."""
    try:
        data = retried(path.read_bytes, url=str(path), local=True)
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give another list") from error
    if kind_by_bytes(data[:HEAD_BYTES]) != "none":
        raise DataError(f"{path} is a picture, no list; give its folder, or a list of pictures")
    if data[TAR_MARK_AT:].startswith(TAR_MARK):
        raise DataError(
            f"{path} is a tar, no list; unpack it and give the folder, or give `milan-pipeline "
            "index` tars of WebDataset"
        )
    if data.startswith(ARCHIVES):
        raise DataError(f"{path} is an archive, no list; unpack it and give the folder")
    if b"\0" in data:
        raise DataError(f"{path} is no list in UTF-8; write paths as plain text, a path a line")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def _file_of(line: _Line) -> tuple[Path, int]:
    """Return the path of a line's image, and its bytes."""
    file = _path_of(line.path, line.name)
    try:
        status = retried(file.stat, url=str(file), local=True)
    except StorageError:
        raise
    except OSError as error:
        if is_link(file):
            fault = f"is {fault_of(str(file), error)}"
            raise line.error(fault, "restore that, or take the line out") from error
        if isinstance(error, PermissionError):
            what = f"cannot be reached ({error.strerror})"
            raise line.error(what, "give yourself the right to (chmod u+rx its folder)") from error
        raise line.error("is no file", _remedy(line)) from error
    if stat.S_ISDIR(status.st_mode):
        raise line.error("is a folder", "list its files, or give it as SOURCE")
    if not stat.S_ISREG(status.st_mode):
        raise line.error("is neither a file nor a folder", "take the line out")
    return file, status.st_size


def _path_of(path: Path, name: str) -> Path:
    return path.parent / os.path.expanduser(name)  # noqa: PTH111 - `Path` fails for no such user


def _remedy(line: _Line) -> str:
    """Say what would make a file of a line: how it looks without quotes, or with a tab."""
    suffix = line.path.suffix.lower()
    if suffix in NO_LISTS:
        return NO_LISTS[suffix]
    name = line.name
    if "://" in name:
        return "pictures are read from a disk: copy this one to it, and write its path there"
    cut = [re.split(rf"{sign}[^{sign}]*\Z", name)[0] for sign in (" ", ",", ";")]
    candidates = [
        ("take the spaces around it off", name.strip()),
        ("take the quotes off", name.strip().strip("\"'")),
        ("write / in place of \\", name.replace("\\", "/")),
        (f"{ONE_FORM}, or copy this one", unicodedata.normalize("NFC", name)),
        (f"{ONE_FORM}, or copy this one", unicodedata.normalize("NFD", name)),
        *(("put a tab between path and class", part.rstrip()) for part in cut if part.strip()),
    ]
    for remedy, other in candidates:
        if other != name and os.path.isfile(_path_of(line.path, other)):  # noqa: PTH113
            return remedy
    return FORM


def _classes(lines: list[_Line]) -> list[str]:
    """Return the names of the classes, none where they are numbers; refuse a mixture."""
    labelled = [line for line in lines if line.label]
    names = [line for line in labelled if not line.label.isdecimal()]
    for line in labelled:
        if line.label.isdecimal() and int(line.label) >= MOST_CLASSES:
            remedy = f"number the classes 0, 1, …, or write names (at most {MOST_CLASSES} classes)"
            raise line.error("is too high for a class number", remedy, of=line.label)
    for line in names:
        is_like_number = NUMBER_LIKE.fullmatch(line.label) or line.label.isnumeric()
        if is_like_number or "\t" in line.label or len(names) < len(labelled):
            remedy = "write 0, 1, … or, in all lines, the names of the classes"
            raise line.error("is no class number", remedy, of=line.label)
    classes = sorted({line.label for line in names})
    if names:
        require_distinct(classes, names[0].path)
    return classes


def _number(label: str) -> int | None:
    return int(label) if label else None
