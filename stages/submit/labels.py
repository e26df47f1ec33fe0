"""Look at the labels that fine-tuning needs, since its job would do so only after days."""

from milan_pipeline.data.labelled import LabelledTable, open_labelled, require_same_classes
from milan_pipeline.errors import ConfigError, DataError


def require_labels(images: str, val: str) -> None:
    """Refuse images to fine-tune on, or to score on, that have no labels, or other classes.

    Raises:
        ConfigError: labels are missing, or a class number has two names.
        MissingDataError, StorageError: there are no such images.
    """
    train, test = f"--images {images}", f"--val {val}"
    require_same_classes(_opened(images, train), _opened(val, test), train, test)


def _opened(place: str, name: str) -> LabelledTable:
    try:
        return open_labelled(place, kind="class")
    except DataError as error:
        raise ConfigError(
            f"{name} cannot be fine-tuned with: {str(error).split(';')[0]}; pack a folder for each "
            "class, or a list with class numbers, or leave --val out"
        ) from error
