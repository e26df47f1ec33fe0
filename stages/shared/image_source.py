"""Where the images to pack lie: on a disk, and apart from the shards that are made of them."""

from pathlib import Path

from milan_pipeline import storage
from milan_pipeline.core.counting import counted
from milan_pipeline.errors import ConfigError
from milan_pipeline.images.folder_walk import walk_folder
from milan_pipeline.shards.manifest import holds_manifest


def local_source(option: str, place: str) -> Path:
    """Return the path of images, which can only be read from a disk.

    Raises:
        ConfigError: it is the URL of something else.
    """
    if "://" not in place:
        return Path(place)
    path = storage.local_path(place) if place.startswith("file://") else None
    if path is None:
        raise ConfigError(
            f"{option} {place} is a URL, but pictures are read from a disk; copy them to one, or "
            "give tars of WebDataset to `milan-pipeline index`, which takes URLs"
        )
    return path


def require_apart(root: Path, place: str) -> None:
    """Refuse a folder of SOURCE's own images, which would be left out of the shards.

    Raises:
        ConfigError: DEST is one, a file, or SOURCE itself.
    """
    dest = storage.local_path(place)
    if dest is None or not dest.exists():
        return
    if not dest.is_dir():
        raise ConfigError(f"DEST {place} is a file; give a folder")
    if root.is_dir() and dest.samefile(root):
        raise ConfigError(f"DEST {place} is SOURCE itself; give a folder of its own")
    if root.resolve() not in dest.resolve().parents or holds_manifest(str(dest)):
        return
    files = walk_folder(dest).files
    if len(files):
        raise ConfigError(
            f"DEST {dest} is a part of SOURCE with {counted(len(files), 'pictures')} "
            f"({files.names[0]}), which would be left out; give a folder of its own"
        )
