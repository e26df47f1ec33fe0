"""Tells what kind of folder something is: a target store, shards of either kind, or a run.

Other programs write a `config.json`, a `zarr.json` or a `manifest.json`, too. So a folder that was
not given, but found, counts only with a record of one of our stages in it.
"""

import contextlib
import os
from pathlib import Path
from typing import Any, Literal

from milan_pipeline import storage
from milan_pipeline.core.schema import DocumentError, parsed
from milan_pipeline.errors import DataError, MissingDataError, StorageError
from milan_pipeline.evaluate.scores_file import SCORES
from milan_pipeline.provenance.run_state import CONFIG_NAME, STATE_NAME
from milan_pipeline.shards.manifest import MANIFEST_NAME, not_ours, stated_kind
from milan_pipeline.targets.layout import STORE_RECORDS, ZARR_JSON, holds_store

Kind = Literal["target store", "target shards", "image shards", "run"]
Result = Literal["scores", "export"]
SHARDS: dict[str, Kind] = {"targets": "target shards", "images": "image shards"}
RECORDS: dict[Kind, tuple[str, ...]] = {
    "target shards": ("pack-targets",),
    "image shards": ("pack-images", "index"),
}
RESULTS: dict[Result, str] = {"scores": "probe.json", "export": "export.json"}
"""Records of outputs that are there as a whole, or not at all."""
DEEPEST = 4
"""Levels of folders below which no output is looked for."""


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
    if storage.exists(storage.join(url, RESULTS["export"])):
        raise MissingDataError(f"{url} holds an export, whose README.md tells of it; give the run")
    if storage.exists(storage.join(url, CONFIG_NAME)):
        return "run"
    if storage.exists(storage.join(url, SCORES)):
        raise MissingDataError(f"{url} holds scores; `milan-pipeline compare {url}` shows them")
    given = give_whole(url)
    path = storage.local_path(url)
    if given is None and path is not None and not path.exists():
        raise MissingDataError(f"{url} does not exist; check the path")
    raise MissingDataError(
        f"{url} is no target store ({ZARR_JSON}), no folder of shards ({MANIFEST_NAME}) and no run "
        f"({CONFIG_NAME}); {given or 'give one of them'}"
    )


def give_whole(url: str) -> str | None:
    """Return the end of an error's sentence that tells to give the output that a place is in."""
    return storage.give_enclosing(url, MANIFEST_NAME, CONFIG_NAME, *STORE_RECORDS)


def result_of(url: str, *, even_damaged: bool = True) -> Result | None:
    """Tell whether a folder has the scores of a probe, or an export; None if neither.

    Args:
        url: the folder.
        even_damaged: whether a record counts that cannot be read as JSON, which anybody's may be.
    """
    for kind, name in RESULTS.items():
        if _is_record(storage.join(url, name), if_damaged=even_damaged):
            return kind
    return None


def outputs_below(folder: Path, levels: int = DEEPEST, *, top: Path | None = None) -> list[Path]:
    """List the outputs below a folder in the order of their names; none lies inside another.

    A link to what lies below the folder anyway, or to a folder above, is passed over.

    Args:
        folder: where to look.
        levels: how deep.
        top: the folder that was asked for, without links; None if it is this one.

    Raises:
        StorageError: the folder itself cannot be listed; those below it are then left out.
    """
    top = Path(os.path.realpath(folder)) if top is None else top
    found = []
    for path in (folder / name for name in storage.list_names(str(folder))):
        if path.name.startswith(".") or not os.path.isdir(path):  # noqa: PTH112  raises nothing
            continue
        if path.is_symlink() and _overlap(Path(os.path.realpath(path)), top):
            continue
        with contextlib.suppress(StorageError):
            if _is_output(str(path)):
                found.append(path)
            elif levels > 1:
                found += outputs_below(path, levels - 1, top=top)
    return found


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _is_output(url: str) -> bool:
    """Tell whether a folder is an output of ours, even one that is damaged."""

    def holds(*names: str) -> bool:
        return any(storage.exists(storage.join(url, name)) for name in names)

    try:
        kind = folder_kind(url)
    except MissingDataError:
        kind = "run"  # or scores or an export, beside which other programs may have a config.json
    except DataError:
        return holds(*(f"{stage}.json" for stages in RECORDS.values() for stage in stages))
    if kind == "target store":
        return holds(*STORE_RECORDS)
    # A manifest of shards says itself that it is ours.
    return kind != "run" or is_own_run(url) or result_of(url, even_damaged=False) is not None


def is_own_run(url: str) -> bool:
    """Tell whether a folder with a `config.json` is a run of ours, even one that is damaged."""
    own_state = storage.exists(storage.join(url, STATE_NAME))
    return own_state or _is_record(storage.join(url, CONFIG_NAME))


def _is_record(url: str, *, if_damaged: bool = False) -> bool:
    """Tell whether a file is the record of a stage, even one that does not match its hash."""
    try:
        document = parsed(storage.read_bytes(url), dict[str, Any])
    except MissingDataError:
        return False
    except DocumentError:
        return if_damaged
    return {"stage", "state"} <= document.keys()
