"""A shard's name in a manifest: a path in the manifest's folder, an absolute one, or a full URL."""

from milan_pipeline import storage


def url_in(folder: str, name: str) -> str:
    """Return where a shard lies that the manifest in a folder lists by this name."""
    return name if _is_absolute(name) else storage.join(folder, name)


def index_name(name: str) -> str:
    """Return the name of a shard's index, in the manifest's folder."""
    own = storage.basename(name) if _is_absolute(name) else name
    return own.removesuffix(".tar") + ".index.npy"


def stem_of(name: str) -> str:
    """Return the file name of a shard without `.tar`."""
    return storage.basename(name).removesuffix(".tar")


def _is_absolute(name: str) -> bool:
    return "://" in name or name.startswith("/")
