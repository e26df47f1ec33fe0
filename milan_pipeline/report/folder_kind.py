"""Tells what kind of folder something is: a target store, shards of either kind, or a run."""

from typing import Literal

from milan_pipeline import storage
from milan_pipeline.core.schema import DocumentError
from milan_pipeline.errors import MissingDataError
from milan_pipeline.evaluate.scores_file import SCORES
from milan_pipeline.shards.manifest import MANIFEST_NAME, not_ours, stated_kind
from milan_pipeline.targets.layout import STORE_RECORDS, ZARR_JSON, holds_store
from milan_pipeline.training.state import CONFIG_NAME

Kind = Literal["target store", "target shards", "image shards", "run"]
SHARDS: dict[str, Kind] = {"targets": "target shards", "images": "image shards"}


def folder_kind(url: str) -> Kind:
    """Tell which kind a folder is, by the file that each kind has.

    Raises:
        MissingDataError: it is none of them.
        DataError: its manifest is damaged.
        StorageError: it cannot be read.
    """
    if holds_store(url):
        return "target store"
    try:
        shards = stated_kind(url)
    except DocumentError as error:
        raise not_ours(storage.join(url, MANIFEST_NAME), error) from error
    if shards is not None:
        return SHARDS[shards]
    if storage.exists(storage.join(url, CONFIG_NAME)):
        return "run"
    if storage.exists(storage.join(url, SCORES)):
        raise MissingDataError(f"{url} holds scores; `milan-pipeline compare {url}` shows them")
    given = storage.give_enclosing(url, MANIFEST_NAME, CONFIG_NAME, *STORE_RECORDS)
    path = storage.local_path(url)
    if given is None and path is not None and not path.exists():
        raise MissingDataError(f"{url} does not exist; check the path")
    raise MissingDataError(
        f"{url} is no target store ({ZARR_JSON}), no folder of shards ({MANIFEST_NAME}) and no run "
        f"({CONFIG_NAME}); {given or 'give one of them'}"
    )
