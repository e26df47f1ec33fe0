"""List all files below the folders of a folder, some folders at a time.

An object store is listed by pages of a thousand names, and a listing of one folder is a request,
however little is in it. So many folders are listed together: those whose names begin alike.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from milan_pipeline.errors import MissingDataError
from milan_pipeline.storage.files import join, list_names, list_tree, without_temporary
from milan_pipeline.storage.filesystems import resolve

FOLDERS_AT_ONCE = 1000
"""A client takes a kilobyte for each object that it lists."""


def list_trees(url: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the names in a folder, sorted, each with the paths of all files below it, sorted.

    A name without any is a file. A disk is listed folder by folder, and so is a store whose client
    cannot list what begins alike. Nothing is yielded where there is no such folder.

    Raises:
        StorageError: it cannot be listed.
    """
    folder = resolve(url)
    names = list_names(url)
    if not folder.lists_beginnings:
        for name in names:
            yield name, list_tree(join(url, name))
        return
    for beginning, alike in _alike(names, 0):
        try:
            found = sorted(without_temporary(folder.tree(beginning)))
        except MissingDataError:  # deleted since
            found = []
        below = {
            name: [path[len(name) + 1 :] for path in paths if path != name]
            for name, paths in itertools.groupby(found, lambda path: path.partition("/")[0])
        }
        for name in alike:
            yield name, below.get(name, [])


def _alike(names: Sequence[str], length: int) -> Iterator[tuple[str, list[str]]]:
    """Yield beginnings of sorted names, each with the few names that begin so."""
    # With the slash, a whole name is no beginning of another one.
    groups: Iterable[tuple[str, Iterable[str]]]
    groups = itertools.groupby(names, lambda name: f"{name}/"[:length])
    for beginning, group in groups:
        alike = list(group)
        if len(alike) <= FOLDERS_AT_ONCE:
            yield beginning, alike
        else:
            yield from _alike(alike, length + 1)
