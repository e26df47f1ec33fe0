"""Every URL: read, write atomically, list, try again, checksums."""

from milan_pipeline.storage.enclosing import enclosing, give_enclosing
from milan_pipeline.storage.files import (
    atomic_writer,
    basename,
    exists,
    expand,
    folder_of,
    has_query,
    join,
    list_names,
    list_sizes,
    list_stamps,
    list_tree,
    local_path,
    open_read,
    put_bytes,
    read_bytes,
    read_many,
    require_writable,
    size_of,
)
from milan_pipeline.storage.leftovers import leftovers, remove_leftovers
from milan_pipeline.storage.space import free_bytes, free_files, free_text
from milan_pipeline.storage.trees import list_trees

__all__ = [
    "atomic_writer",
    "basename",
    "enclosing",
    "exists",
    "expand",
    "folder_of",
    "free_bytes",
    "free_files",
    "free_text",
    "give_enclosing",
    "has_query",
    "join",
    "leftovers",
    "list_names",
    "list_sizes",
    "list_stamps",
    "list_tree",
    "list_trees",
    "local_path",
    "open_read",
    "put_bytes",
    "read_bytes",
    "read_many",
    "remove_leftovers",
    "require_writable",
    "size_of",
]
