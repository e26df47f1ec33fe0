"""A list of images: one path a line, then optionally a tab and a class, by number or by name."""

import dataclasses
import io
import itertools
import os
import re
import stat
import unicodedata
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.errors import DataError, StorageError
from milan_pipeline.images.class_labels import class_numbers
from milan_pipeline.images.file_faults import fault_of, is_link, shortened, status_of
from milan_pipeline.images.formats import HEAD_BYTES, kind_by_bytes
from milan_pipeline.images.found_files import Found, FoundFiles
from milan_pipeline.images.source_files import NO_LABEL
from milan_pipeline.images.spelling import ONE_FORM

PART_BYTES = 1 << 16
FORM = "write a path a line, then optionally a tab and a class"
NO_LISTS = {".json": "write JSON lines, an object a line, and end the name in .jsonl"}
"""What helps where the ending of a list's name says that it is none."""
TAR_MARK, TAR_MARK_AT = b"ustar", 257
ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ", b"BZh")


@dataclasses.dataclass(frozen=True)
class ImageList:
    """What a list has.

    Attributes:
        files: each name as it is written there, and the image's bytes.
        places: paths of images whose names are short for them, by row.
        label_n: (n,) class numbers; `NO_LABEL` where a line has none.
        classes: the names that the labels number, in sorted order; none if these are numbers.
    """

    files: FoundFiles
    places: dict[int, str]
    label_n: NDArray[np.int32]
    classes: list[str]


@dataclasses.dataclass(frozen=True, slots=True)
class _Line:
    """A line of a list; `path` is where its image lies."""

    list: Path
    number: int
    name: str
    label: str
    path: str

    def error(self, what: str, remedy: str) -> DataError:
        return self._error(self.name, what, remedy)

    def refused(self, what: str, remedy: str) -> DataError:
        """Return the error for the line's label."""
        return self._error(self.label, what, remedy)

    def _error(self, of: str, what: str, remedy: str) -> DataError:
        place = f"{self.list} line {self.number}"
        return DataError(f"{place}: '{shortened(of)}' {what}; {remedy}")


def read_list(path: Path) -> ImageList:
    """Read a list; of a million lines, only columns are kept.

    Raises:
        DataError: it is no text, or a line of it cannot be used, which is named.
    """
    files, places = FoundFiles(), dict[int, str]()
    by_label: dict[str, _Line] = {}
    number_of: dict[str, int] = {}
    label_n, hash_n = array("i"), array("Q")
    _require_list(path)
    for line in _lines(path):
        if line.name.startswith("~"):
            places[len(files)] = line.path
        files.append(Found(line.name, _size_of(line), "image"))
        hash_n.append(_hash(line.path))
        if line.label:
            by_label.setdefault(line.label, line)
            label_n.append(number_of.setdefault(line.label, len(number_of)))
        else:
            label_n.append(NO_LABEL)
    _require_distinct(path, hash_n)
    numbers, classes = class_numbers(
        list(by_label), path, lambda label, *why: by_label[label].refused(*why)
    )
    # The last entry is what a line without a label has.
    final = np.array([*(numbers[label] for label in by_label), NO_LABEL], np.int32)
    return ImageList(files, places, final[np.frombuffer(label_n, np.int32)], classes)


def _lines(path: Path) -> Iterator[_Line]:
    """Yield the lines that name an image; of names that are not UTF-8, no byte is lost."""
    folder = str(path.parent)
    # Read as text, lines end as any system has it.
    with (
        storage.open_read(str(path)) as stream,
        io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape") as lines,
    ):
        for number, line in enumerate(lines, start=1):
            name, _, label = line.removesuffix("\n").partition("\t")
            if name.strip():
                yield _Line(path, number, name, label.strip(), _path_of(folder, name))


def _require_distinct(path: Path, hashes: "array[int]") -> None:
    """Refuse a file that comes twice, given the hash of each line's path."""
    hash_n = np.frombuffer(hashes, np.uint64)
    sorted_n = np.sort(hash_n)
    repeated = set(sorted_n[1:][sorted_n[1:] == sorted_n[:-1]].tolist())
    if not repeated:
        return
    seen: dict[str, int] = {}
    for line in _lines(path):
        place = os.path.normpath(line.path)
        first = seen.setdefault(place, line.number) if _hash(place) in repeated else line.number
        if first != line.number:
            raise line.error(f"comes twice, first in line {first}", "take one of them out")


def _hash(path: str) -> int:
    return xxhash.xxh3_64_intdigest(os.fsencode(os.path.normpath(path)))


def _require_list(path: Path) -> None:
    """Refuse what is no text by its first bytes, or anywhere; it is read part by part."""
    with storage.open_read(str(path)) as stream:
        head = stream.read(HEAD_BYTES + TAR_MARK_AT + len(TAR_MARK))
        parts = itertools.chain([head], iter(lambda: stream.read(PART_BYTES), b""))
        has_nul = any(b"\0" in part for part in parts)
    if kind_by_bytes(head[:HEAD_BYTES]) != "none":
        raise DataError(f"{path} is a picture, no list; give its folder, or a list of pictures")
    if head[TAR_MARK_AT:].startswith(TAR_MARK):
        raise DataError(
            f"{path} is a tar, no list; unpack it and give the folder, or give `milan-pipeline "
            "index` tars of WebDataset"
        )
    if head.startswith(ARCHIVES):
        raise DataError(f"{path} is an archive, no list; unpack it and give the folder")
    if has_nul:
        raise DataError(f"{path} is no list in UTF-8; write paths as plain text, a path a line")


def _size_of(line: _Line) -> int:
    """Return the bytes of a line's image."""
    path = line.path
    try:
        status = status_of(path)
    except StorageError:
        raise
    except OSError as error:
        if is_link(path):
            fault = f"is {fault_of(path, error)}"
            raise line.error(fault, "restore that, or take the line out") from error
        if isinstance(error, PermissionError):
            what = f"cannot be reached ({error.strerror})"
            raise line.error(what, "give yourself the right to (chmod u+rx its folder)") from error
        raise line.error("is no file", _remedy(line)) from error
    if stat.S_ISDIR(status.st_mode):
        raise line.error("is a folder", "list its files, or give it as SOURCE")
    if not stat.S_ISREG(status.st_mode):
        raise line.error("is neither a file nor a folder", "take the line out")
    return status.st_size


def _path_of(folder: str, name: str) -> str:
    # `Path` fails for no such user, and takes long for a million names.
    return os.path.join(folder, os.path.expanduser(name))  # noqa: PTH111, PTH118


def _remedy(line: _Line) -> str:
    """Say what would make a file of a line: how it looks without quotes, or with a tab."""
    suffix = line.list.suffix.lower()
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
        if other != name and os.path.isfile(_path_of(str(line.list.parent), other)):  # noqa: PTH113
            return remedy
    return FORM
