"""Look at the labels that fine-tuning needs, since its job would do so only after days."""

from milan_pipeline import storage
from milan_pipeline.data.labelled import LabelledTable, open_labelled, require_same_classes
from milan_pipeline.data.labelled_sources import require_class_numbers
from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.shards.manifest import MANIFEST_NAME, load_manifest


def require_labels(images: str, val: str) -> None:
    """Refuse images to fine-tune on, or to score on, that have no labels, or other classes.

    Of shards the first sample is read, no more.

    Raises:
        ConfigError: labels are missing, or a class number has two names.
        MissingDataError, DataError, StorageError: there are no such images.
    """
    train, test = f"--images {images}", f"--val {val}"
    require_same_classes(_glance(images, train), _glance(val, test), train, test)


def _glance(place: str, name: str) -> LabelledTable:
    """Return a table that knows its classes' names, but perhaps none of its samples."""
    if not storage.exists(storage.join(place, MANIFEST_NAME)):
        return open_labelled(place, kind="class")
    manifest = load_manifest(place, kind="images")
    try:
        require_class_numbers(manifest)
    except DataError as error:
        raise ConfigError(
            f"{name} cannot be fine-tuned with: {str(error).split(';')[0]}; pack a folder for each "
            "class, or a list with class numbers, or leave --val out"
        ) from error
    classes = tuple(manifest.common.get("classes", ()))
    return LabelledTable(parts=[], kind="class", classes=classes, source=manifest.sha256)
