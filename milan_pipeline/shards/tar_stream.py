"""Read a tar as a stream, to its very end, and hash and count its bytes."""

import contextlib
import hashlib
import io
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from milan_pipeline import storage
from milan_pipeline.errors import DataError, MilanError, StorageError, reason_of
from milan_pipeline.images.budget import Skipped

COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
OTHER_FILES = {
    b"version ": "a Git LFS pointer, not the tar itself; fetch that by `git lfs pull`",
    b"PK\x03\x04": "a zip file, not a tar; unpack it, and make a tar of its files",
    b"7z\xbc\xaf": "a 7-Zip file, not a tar; unpack it, and make a tar of its files",
    b"<": "a web page, not a tar, as failed downloads leave them; download it again",
}
"""What files called .tar may be instead, by their first bytes."""
KINDS = {
    (tarfile.SYMTYPE, tarfile.LNKTYPE): "a link",
    (tarfile.CHRTYPE, tarfile.BLKTYPE): "a device",
    (tarfile.FIFOTYPE,): "a pipe",
}
"""What members are that are no files, by their types."""
LABELS = (b"V",)
"""Types of members that say something of the tar itself: GNU tar's label of a volume."""
READS_PAST_END = 16
"""At most: tarfile would go on reading a member whose header says that it has exabytes."""
LEAST_END_BYTES = tarfile.BLOCKSIZE
"""The zeros that end a tar of some writers; most write twice as many."""


class HashingFile(io.RawIOBase):
    """Pass bytes through to (or from) a file, hashing and counting them."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.sha256 = hashlib.sha256()
        self.count = 0
        self.head = b""
        self.content_end = 0  # behind the last byte that is not zero
        self._past_end = 0

    def _see(self, data: bytes) -> None:
        self.head = self.head or data[:8]
        self.sha256.update(data)
        content = data.rstrip(b"\0")
        if content:
            self.content_end = self.count + len(content)
        self.count += len(data)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write all of it."""
        self._see(data)
        return self.stream.write(data)

    def read(self, size: int = -1) -> bytes:
        """Read at most so many bytes.

        Raises:
            EOFError: the end was reached, and more is asked for again and again.
        """
        data = self.stream.read(size)
        self._see(data)
        self._past_end += not data
        if self._past_end > READS_PAST_END:
            raise EOFError("a member is longer than what follows")
        return data

    def tell(self) -> int:
        """Return how many bytes went through."""
        return self.count


def stream_members(
    file: HashingFile, url: str, passed: list[Skipped]
) -> Iterator[tuple[str, bytes, int]]:
    """Read every regular member of a tar, and the tar to its very end.

    Args:
        file: the tar.
        url: of it, for messages.
        passed: gets a row for each link, device and pipe, which are skipped; folders are skipped
            without one, since they hold nothing by themselves.

    Yields:
        Name, bytes, and where in the tar they begin.

    Raises:
        DataError: the tar is damaged, truncated or compressed, has a sparse member, a member
            larger than the tar, or hundreds of extension headers in a row, which tarfile reads
            recursively.
    """
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                passed += _reasons_against(member)
                if member.issparse():
                    raise DataError(
                        f"{url} holds {member.name!r} as a sparse file, whose bytes do not lie in "
                        "one piece; make it again without tar's --sparse"
                    )
                extracted = tar.extractfile(member) if member.isreg() else None
                if extracted is not None:
                    yield member.name, extracted.read(), member.offset_data
            end = tar.offset
        while file.read(1 << 20):
            pass
    except (MilanError, OSError, MemoryError):
        raise
    except Exception as error:  # tarfile raises whatever a damaged header leads it to
        raise _not_readable(file, url, error) from error
    # tarfile ends without an error at the first header that it cannot read.
    if file.content_end > end or file.count < end + LEAST_END_BYTES:
        raise DataError(
            f"{url} is damaged or truncated: its members end at byte {end} of {file.count}, but "
            f"not with the mark of a tar's end; {_remedy(url, end, file.count)}"
        )


def _not_readable(file: HashingFile, url: str, error: Exception) -> DataError:
    """Say what a file is that tarfile cannot read."""
    other = next((text for head, text in OTHER_FILES.items() if file.head.startswith(head)), None)
    if other is not None:
        return DataError(f"{url} is {other}")
    if file.head.startswith(COMPRESSED):
        return DataError(
            f"{url} is compressed, but samples are read at byte offsets; unpack it first"
        )
    return DataError(f"{url} is damaged or truncated ({reason_of(error)}); copy or make it again")


def _remedy(url: str, end: int, size: int) -> str:
    """Say what helps where a tar's members end at byte `end`, but the tar of `size` does not."""
    if end == size:  # some writers leave the mark out; a tar cut behind a member looks alike
        return (
            "copy it again or, if it is whole, append 1024 zero bytes, as `truncate --size=+1024` "
            "does"
        )
    with contextlib.suppress(StorageError):
        if storage.read_bytes(url, end, tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE):
            return "copy it again or, if tars were joined by cat, join them by `tar --concatenate`"
    return "copy or make it again"


def _reasons_against(member: tarfile.TarInfo) -> list[Skipped]:
    """Say why a member is skipped, if it is no file."""
    if member.isreg() or member.isdir() or member.type in LABELS:
        return []
    kind = next((word for types, word in KINDS.items() if member.type in types), "no file")
    return [{"key": member.name, "reason": f"is {kind}, which is not followed"}]
