"""What lies at a place: a target store, shards of either kind, or a run."""

import json
from typing import Literal

from milan_pipeline import storage
from milan_pipeline.documents import MISSHAPEN
from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.manifest import MANIFEST_NAME

Kind = Literal["target store", "target shards", "image shards", "run"]
SHARDS: dict[str, Kind] = {"targets": "target shards", "images": "image shards"}


def kind_of(url: str) -> Kind:
    """Tell what lies at a place, by the file that each kind has.

    Raises:
        MissingDataError: it is none of them.
        DataError: its manifest is damaged.
        StorageError: it cannot be read.
    """
    if storage.exists(storage.join(url, "zarr.json")):
        return "target store"
    manifest = storage.join(url, MANIFEST_NAME)
    if storage.exists(manifest):
        try:
            return SHARDS[json.loads(storage.read_bytes(manifest))["kind"]]
        except MISSHAPEN as error:
            raise DataError(f"{manifest} is no manifest ({error!r}); make it again") from error
    if storage.exists(storage.join(url, "config.json")):
        return "run"
    raise MissingDataError(
        f"{url} is no target store (zarr.json), no folder of shards ({MANIFEST_NAME}) and no run "
        "(config.json); give one of them"
    )
