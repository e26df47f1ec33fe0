"""Write many shards and their manifest so that a kill loses no finished shard."""

import dataclasses
import time
from collections.abc import Iterable

from milan_pipeline import storage
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.manifest import MANIFEST_NAME, Manifest, Shard, load_manifest

# Rewriting the manifest may take this share of the time at most: with many shards it is long.
MANIFEST_TIME_SHARE = 0.1


def listed_shards(folder: str, kind: str) -> dict[str, Shard]:
    """Return the shards that an earlier, perhaps unfinished, run listed; by name."""
    if not storage.exists(storage.join(folder, MANIFEST_NAME)):
        return {}
    manifest = load_manifest(folder, kind=kind, allow_unfinished=True)
    return {shard.name: shard for shard in manifest.shards}


def list_as_written(
    manifest: Manifest, *, order: list[str], written: Iterable[Shard], stop: StopRequest
) -> Manifest:
    """List shards as they are written: save the manifest now and then, complete it at the end.

    Args:
        manifest: what is listed before.
        order: the names of all shards that the complete manifest will list, in its order.
        written: yields each shard right after its tar and index are in place.
        stop: asked after each shard.

    Returns:
        The complete manifest, as saved.
    """
    listed = {shard.name: shard for shard in manifest.shards}
    saved_at, save_seconds = time.monotonic(), 0.0
    try:
        for shard in written:
            listed[shard.name] = shard
            if (time.monotonic() - saved_at) * MANIFEST_TIME_SHARE >= save_seconds:
                started = time.monotonic()
                _saved(manifest, listed, order, complete=False)
                saved_at = time.monotonic()
                save_seconds = saved_at - started
            stop.raise_if_asked("finished shards are kept")
    except BaseException:
        _saved(manifest, listed, order, complete=False)
        raise
    return _saved(manifest, listed, order, complete=True)


def _saved(
    manifest: Manifest, listed: dict[str, Shard], order: list[str], *, complete: bool
) -> Manifest:
    shards = tuple(listed[name] for name in order if name in listed)
    manifest = dataclasses.replace(manifest, shards=shards, complete=complete)
    manifest.save()
    return manifest
