"""Refuses inputs that are not there, before torch is loaded, which takes seconds.

Options name these functions as their `look`. Places that are not local are left to the stage, as
each would be asked over the network twice.
"""

from pathlib import Path

from milan_pipeline import storage
from milan_pipeline.core.schema import DocumentError
from milan_pipeline.errors import MissingDataError
from milan_pipeline.provenance.run_state import require_ended
from milan_pipeline.shards.manifest import load_manifest, stated_kind
from milan_pipeline.teacher.sources.known_names import require_teacher
from milan_pipeline.teacher.spec import TeacherSpec


def place(given: str) -> None:
    """Refuse a file or folder that does not exist.

    Raises:
        MissingDataError: it does not.
    """
    path = storage.local_path(given)
    if path is not None and not path.exists():
        raise MissingDataError(f"{given} does not exist; check the path")


def run(folder: str) -> None:
    """Refuse what is no run's folder; whether the run is done is left to the stage.

    Raises:
        MissingDataError: there is no run.
    """
    require_ended(Path(folder), allow_unfinished=True)


def run_or_encoder(given: str) -> None:
    """Refuse what is neither a run's folder nor a `.safetensors` file; raises as `run`, `place`."""
    (place if given.endswith(".safetensors") else run)(given)


def image_shards(folder: str) -> None:
    """Refuse what is no folder of image shards; raises as `load_manifest` does."""
    _require_shards(folder, "images")


def target_shards(folder: str) -> None:
    """Refuse what is no folder of target shards; raises as `load_manifest` does."""
    _require_shards(folder, "targets")


def target_store(url: str) -> None:
    """Refuse what is no target store; raises as `read_identity` does."""
    from milan_pipeline.targets.layout import read_identity  # which loads zarr

    if storage.local_path(url) is not None:
        read_identity(url)


def teacher(name: str) -> None:
    """Refuse a teacher of which a glance tells that there is none; see `require_teacher`."""
    require_teacher(TeacherSpec(name=name))


def _require_shards(folder: str, kind: str) -> None:
    """Refuse a folder whose manifest does not begin as that of such shards does."""
    if storage.local_path(folder) is None:
        return
    try:
        found = stated_kind(storage.folder_of(folder) if folder.endswith(".json") else folder)
    except DocumentError:
        found = None
    if found != kind:
        load_manifest(folder, kind=kind)  # it says what is wrong
