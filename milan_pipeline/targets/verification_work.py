"""Check a store unit by unit, in any process; find missing groups and files that nothing reads."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import xxhash

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
    """What was found in a unit, in few bytes: a store may have millions of units.

    Attributes:
        targets: how many targets its mark says that it has.
        faults: what is wrong with the unit.
        names: hash of the names of the objects that its mark lists; None without a mark.
    """

    targets: int
    faults: list[str]
    names: int | None


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
            return Finding(0, [str(error).split(";", maxsplit=1)[0]], None)
        faults = self._check.faults(item, mark)
        return Finding(0, faults, None) if mark is None else Finding(mark.n, faults, _hash(mark))


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


def extra_names(url: str, view: int, units: Mapping[str, tuple[Unit, int | None]]) -> int:
    """Count what lies in a view's folder and nothing reads.

    That is each file of a unit that its mark does not list, and each entry that is of no unit.

    Args:
        url: the store.
        view: which one; it is listed once.
        units: all units of the view, by name, each with `Finding.names`. Files of a unit are not
            counted if that is None.
    """
    extra = 0
    for name, paths in storage.list_trees(storage.join(url, view_name(view))):
        if name not in units:
            extra += name != ZARR_JSON
            continue
        unit, names = units[name]
        if names is not None and names != _hash_of(paths):  # the names are needed
            mark = read_mark(url, unit)
            extra += 0 if mark is None else len(set(paths) - mark.objects.keys())
    return extra


def _hash(mark: Mark) -> int:
    return _hash_of(sorted(mark.objects))


def _hash_of(names: list[str]) -> int:
    """Return a hash of sorted names, which takes a thousandth of their memory."""
    return xxhash.xxh3_64_intdigest("\0".join(names).encode(errors="surrogatepass"))
