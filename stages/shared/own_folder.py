"""A stage's output goes into a folder of its own."""

from typing import TYPE_CHECKING, Literal

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, DataError, MissingDataError

if TYPE_CHECKING:
    from milan_pipeline.report.folder_kind import Kind


AS_FOUND: "dict[Kind, str]" = {
    "target store": "a target store",
    "target shards": "target shards",
    "image shards": "image shards",
    "run": "a run",
}
AS_OUTPUT: "dict[Kind | Literal['export'], str]" = {
    "target store": "the targets",
    "target shards": "the shards",
    "image shards": "the shards",
    "run": "the run",
    "export": "the export",
}


def require_own_folder(out: str, kind: "Kind | Literal['export']") -> None:
    """Refuse to write into a folder that holds something else.

    Shards of the other kind and damaged manifests are refused by the manifest's reader, or by
    `require_place` where a target store is to be written.

    Args:
        out: the folder.
        kind: what is to be written there.

    Raises:
        ConfigError: it is of another kind, or lies in a target store.
        StorageError: it cannot be asked.
    """
    from milan_pipeline.report.folder_kind import folder_kind
    from milan_pipeline.targets.layout import STORE_RECORDS

    local = storage.local_path(out)
    for folder in () if local is None else local.absolute().parents:
        if any((folder / name).is_file() for name in STORE_RECORDS):
            raise ConfigError(
                f"{out} lies in the target store {folder}, and would be lost with it; give another "
                f"folder for {AS_OUTPUT[kind]}"
            )
    try:
        found = folder_kind(out)
    except (MissingDataError, DataError):
        return
    if found != kind and ("shards" not in found or kind in ("run", "export")):
        raise ConfigError(
            f"{out} already holds {AS_FOUND[found]}; give another folder for {AS_OUTPUT[kind]}"
        )
