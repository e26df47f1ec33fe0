"""Hashes beside files of weights: `NAME.sha256`, which `sha256sum -c` reads, too.

A flipped bit in weights gives wrong numbers without an error. So there are hashes beside weights
that we write, of the weights and of their description; whoever reads them checks the hashes.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Mapping

from milan_pipeline import storage
from milan_pipeline.core.console import NOTE
from milan_pipeline.core.file_kinds import HEAD, explained
from milan_pipeline.errors import DataError, MissingDataError

logger = logging.getLogger(__name__)

SUFFIX = ".sha256"
CHECKPOINT_SUMS = "sha256.json"
"""In a checkpoint's folder: the hashes of all its files, as JSON."""


def put_with_sums(folder: str, files: Mapping[str, bytes]) -> None:
    """Write files that belong together, each atomically, and their hashes beside them.

    Where this is interrupted, the hashes do not fit the files, and readers refuse these.

    Args:
        folder: where they go.
        files: their bytes by name; the hashes are named after the first, the weights.

    Raises:
        StorageError: the place cannot be written, or it is full.
    """
    for name, data in files.items():
        storage.put_bytes(storage.join(folder, name), data)
    storage.put_bytes(storage.join(folder, sums_name(next(iter(files)))), sums_bytes(files))


def sums_name(name: str) -> str:
    """Return the name of the hashes of a file, and of those that differ only in their ending."""
    return name.rpartition(".")[0] + SUFFIX


def sums_bytes(files: Mapping[str, bytes]) -> bytes:
    """Serialise the hashes of files, as `sha256sum` does."""
    return "".join(f"{_sha256(data)}  {name}\n" for name, data in files.items()).encode()


def read_checked(url: str) -> bytes:
    """Read a file; refuse it if the hashes beside it are of another one.

    A file that others wrote may have no hashes; that is logged once.

    Raises:
        MissingDataError: there is no such file.
        DataError: it is not the file that the hashes were made of.
        StorageError: it cannot be read.
    """
    data, name, folder = storage.read_bytes(url), storage.basename(url), storage.folder_of(url)
    for sums in (storage.join(folder, sums_name(name)), storage.join(folder, CHECKPOINT_SUMS)):
        stated = _stated(sums)
        if stated is None:
            continue
        if stated.get(name) != _sha256(data):
            otherwise = (
                f"is not the file that {sums} was made of; copy or make it again, or delete "
                f"{storage.basename(sums)} if it was changed on purpose"
            )
            raise DataError(explained(url, data[:HEAD], otherwise))
        return data
    _log_unchecked(url)
    return data


def _stated(url: str) -> dict[str, str] | None:
    """Return the hashes in a list, by name; None where there is no list."""
    try:
        text = storage.read_bytes(url).decode()
        if url.endswith(CHECKPOINT_SUMS):
            return dict(json.loads(text))
        rows = [line.split(maxsplit=1) for line in text.splitlines()]
        return {name.removeprefix("*"): digest for digest, name in rows}
    except MissingDataError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{url} lists no hashes ({error}); restore it, or delete it to go unchecked"
        ) from error


@functools.cache
def _log_unchecked(url: str) -> None:
    """Log that a file has no hash; because of the cache, once."""
    logger.log(NOTE, "Note: %s has no hash beside it, so it is not checked for damage", url)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
