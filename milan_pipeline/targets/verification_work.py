"""Check a store unit by unit, in any process; find missing groups and files that nothing reads."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from milan_pipeline import storage
from milan_pipeline.cluster.work import Work
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.provenance.identity import require_hash
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.layout import ZARR_JSON, is_group, read_identity
from milan_pipeline.targets.units import Mark, Unit, read_mark, view_name
from milan_pipeline.targets.verification import StoreCheck


class Finding(NamedTuple):
    """What was found in a unit.

    Attributes:
        mark: the unit's mark; None if it cannot be read.
        faults: what is wrong with the unit.
        extra: number of files in its folder that no mark lists.
    """

    mark: Mark | None
    faults: list[str]
    extra: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckingSpec:
    """Which store is checked against which images.

    Attributes:
        store: URL of the store.
        store_hash: hash of its identity.
        images: URL of the image shards; None omits the checks against them.
        images_sha256: hash of their manifest.
    """

    store: str
    store_hash: str
    images: str | None
    images_sha256: str | None

    def begin(self, number: int | None) -> "Checking":
        """Read the store's identity and the images' manifest.

        Raises:
            MissingDataError: the store or the images are not there.
            MismatchError: the store or the images are not those that this names.
            StorageError: one of them cannot be read.
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


def faults_of_groups(url: str, views: int) -> dict[int, str]:
    """Return which views' groups are missing or damaged, by view."""
    faults = {}
    for view in range(views):
        place = storage.join(url, view_name(view), ZARR_JSON)
        try:
            if not is_group(storage.read_bytes(place)):
                faults[view] = f"{place} is damaged"
        except MissingDataError:
            faults[view] = f"{place} is missing"
    return faults


def extra_objects(url: str, unit: Unit, mark: Mark) -> int:
    """Count the files in a unit's folder that no mark lists; nothing reads them."""
    return len(set(storage.list_tree(storage.join(url, unit.path))) - mark.objects.keys())


def extra_units(url: str, units: Sequence[Unit], views: int) -> int:
    """Count the entries of the views' folders that belong to none of the units."""
    expected = {unit.path for unit in units} | {
        f"{view_name(view)}/{ZARR_JSON}" for view in range(views)
    }
    found = {
        f"{view_name(view)}/{name}"
        for view in range(views)
        for name in storage.list_names(storage.join(url, view_name(view)))
    }
    return len(found - expected)
