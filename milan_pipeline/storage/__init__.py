"""Every URL: read, write atomically, list, try again, checksums."""

from milan_pipeline.storage.files import (
    atomic_writer,
    basename,
    exists,
    expand,
    folder_of,
    free_bytes,
    free_text,
    join,
    list_names,
    local_path,
    open_read,
    put_bytes,
    read_bytes,
    read_many,
    require_writable,
    size_of,
)

__all__ = [
    "atomic_writer",
    "basename",
    "exists",
    "expand",
    "folder_of",
    "free_bytes",
    "free_text",
    "join",
    "list_names",
    "local_path",
    "open_read",
    "put_bytes",
    "read_bytes",
    "read_many",
    "require_writable",
    "size_of",
]
