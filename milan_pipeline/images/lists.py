"""A list of images: one path a line, then optionally a tab and a class, by number or by name."""

import dataclasses
import os
import re
import stat
import unicodedata
from pathlib import Path

from milan_pipeline.errors import DataError, StorageError
from milan_pipeline.images.class_labels import class_numbers
from milan_pipeline.images.file_faults import fault_of, is_link, shortened
from milan_pipeline.images.formats import HEAD_BYTES, kind_by_bytes
from milan_pipeline.images.spelling import ONE_FORM
from milan_pipeline.storage.retries import retried

LINE_END = re.compile(r"\r\n|\n|\r")
FORM = "write a path a line, then optionally a tab and a class"
NO_LISTS = {
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

    def error(self, what: str, remedy: str) -> DataError:
        return self._error(self.name, what, remedy)

    def refused(self, what: str, remedy: str) -> DataError:
        """Return the error for the line's label."""
        return self._error(self.label, what, remedy)

    def _error(self, of: str, what: str, remedy: str) -> DataError:
        place = f"{self.path} line {self.number}"
        return DataError(f"{place}: '{shortened(of)}' {what}; {remedy}")


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
    by_label: dict[str, _Line] = {}
    for line in lines:
        if line.label:
            by_label.setdefault(line.label, line)
    numbers, classes = class_numbers(
        list(by_label), path, lambda label, *why: by_label[label].refused(*why)
    )
    listed = [
        Listed(line.name, *file, numbers.get(line.label))
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
