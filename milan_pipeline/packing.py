"""Write many shards and their manifest so that a kill loses no finished shard."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Generator

from milan_pipeline import storage
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.manifest import MANIFEST_NAME, Manifest, Shard, load_manifest

logger = logging.getLogger(__name__)

# Rewriting the manifest may take this share of the time at most: with many shards it is long.
MANIFEST_TIME_SHARE = 0.1


def listed_shards(folder: str, kind: str) -> dict[str, Shard]:
    """Return the shards that an earlier, perhaps unfinished, run listed; by name.

    A listed shard whose tar or index was deleted is left out, so that it is made again.

    Raises:
        MismatchError: the folder holds shards of another kind.
    """
    if not storage.exists(storage.join(folder, MANIFEST_NAME)):
        return {}
    manifest = load_manifest(folder, kind=kind, allow_unfinished=True)
    urls = {
        shard.name: {manifest.url_of(shard), manifest.index_url_of(shard)}
        for shard in manifest.shards
    }
    folders = {storage.folder_of(url) for both in urls.values() for url in both}
    there = {storage.join(at, name) for at in folders for name in storage.list_names(at)}
    return {shard.name: shard for shard in manifest.shards if urls[shard.name] <= there}


def list_as_written(
    manifest: Manifest,
    *,
    order: list[str],
    written: Generator[Shard, None, None],
    stop: StopRequest,
) -> Manifest:
    """List shards as they are written: save the manifest now and then, complete it at the end.

    Args:
        manifest: what is listed before.
        order: the names of all shards that the complete manifest will list, in its order.
        written: yields each shard right after its tar and index are in place; is closed here, so
            that its threads start nothing more once a stop was asked for.
        stop: asked after each shard.

    Returns:
        The complete manifest, as saved.
    """
    listed = {shard.name: shard for shard in manifest.shards}
    saved_at, save_seconds = time.monotonic(), 0.0
    try:
        with contextlib.closing(written):
            for shard in written:
                listed[shard.name] = shard
                logger.info("%s: %d samples, %d bytes", shard.name, shard.samples, shard.bytes)
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
