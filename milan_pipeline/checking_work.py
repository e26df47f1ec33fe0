"""Checking a store unit by unit, by whichever process: each object, key and number of it."""

import dataclasses
from typing import NamedTuple

from milan_pipeline.errors import DataError, MismatchError
from milan_pipeline.identity import require_hash
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.manifest import load_manifest
from milan_pipeline.store_listing import extra_objects
from milan_pipeline.target_store import read_identity
from milan_pipeline.units import Mark, Unit, read_mark
from milan_pipeline.verification import StoreCheck
from milan_pipeline.work import Work


class Finding(NamedTuple):
    """A unit's mark, if it can be read, what is wrong with the unit, and names no mark lists."""

    mark: Mark | None
    faults: list[str]
    extra: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckingSpec:
    """Which store, against which images.

    Attributes:
        store: URL of the store.
        store_hash: of its identity.
        images: URL of the image shards; None leaves out what they would tell.
        images_sha256: of their manifest.
    """

    store: str
    store_hash: str
    images: str | None
    images_sha256: str | None

    def begin(self, number: int | None) -> "Checking":
        """Read what the store and the images are.

        Raises:
            MissingDataError: the store or the images are not there.
            MismatchError: those that are there are not those that are meant.
            StorageError: one cannot be read.
        """
        del number  # no GPU takes part
        identity = read_identity(self.store)
        require_hash(identity, self.store_hash, what=self.store)
        images = None if self.images is None else load_manifest(self.images, kind="images")
        if images is not None and images.sha256 != self.images_sha256:
            raise MismatchError(f"{self.images} lists other images there than for the client")
        return Checking(StoreCheck(url=self.store, identity=identity, images=images))


class Checking(Work[Unit, Finding]):
    """Checks units."""

    def __init__(self, check: StoreCheck) -> None:
        self._check = check

    def do(self, item: Unit, stop: StopRequest) -> Finding:
        """Check one unit, unless a stop was asked for.

        Raises:
            DataError: an index is not the one that the images' manifest lists.
            InterruptedRunError: a stop was asked for.
            StorageError: the store or an index cannot be read.
        """
        stop.raise_if_asked("checking changes nothing")
        url = self._check.url
        try:
            mark = read_mark(url, item)
        except DataError as error:
            return Finding(None, [str(error).split(";", maxsplit=1)[0]], 0)
        extra = 0 if mark is None else extra_objects(url, item, mark)
        return Finding(mark, self._check.faults(item, mark), extra)
