"""Find the shards that a manifest lists and nobody copied, before anything is read from them."""

import functools
from collections.abc import Iterable

from milan_pipeline import storage
from milan_pipeline.errors import MissingDataError
from milan_pipeline.shards.index import MAKERS
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.random_access import LISTED
from milan_pipeline.shards.shard_names import index_name


def require_present(head: Manifest, names: Iterable[str]) -> None:
    """Refuse shards of which a tar or an index is not there, if they lie in local folders.

    Each folder is listed once. Object stores are not: a million shards are thousands of requests.

    Args:
        head: the manifest, whose own shards are not looked at.
        names: of the shards, as the manifest has them.

    Raises:
        MissingDataError: a file is not there.
        StorageError: a folder cannot be listed.
    """
    if storage.local_path(head.folder) is None:
        return

    @functools.cache
    def listed(folder: str) -> frozenset[str]:
        return frozenset(storage.list_names(folder))

    for name in names:
        for file, remedy in ((name, LISTED), (index_name(name), MAKERS[head.kind])):
            if "://" in file:
                continue
            folder, slash, own = file.rpartition("/")
            place = folder or slash if file.startswith("/") else storage.join(head.folder, folder)
            # A disk may list a name in another form (macOS) and find it all the same.
            if own not in listed(place) and not storage.exists(storage.join(place, own)):
                raise MissingDataError(f"{storage.join(place, own)} does not exist; {remedy}")
