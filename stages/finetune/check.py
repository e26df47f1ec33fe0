"""What `finetune` looks at before its first step: the classes, and the images to score on."""

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.cluster.world import World
from milan_pipeline.data.labelled import LabelledTable, decoded_image
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.coverage import named, warnings_of_classes
from milan_pipeline.evaluate.survey import looked_at
from stages.shared.checking import unwritten_ledger

if TYPE_CHECKING:
    from stages.finetune.command import Finetune


def require_images(config: "Finetune", val: LabelledTable, world: World) -> None:
    """Decode the images to score on; every process must call this.

    Raises:
        DataError: more cannot be decoded than `--max-bad-fraction` allows.
    """
    ledger = unwritten_ledger(config, "val", val.samples)
    looking = functools.partial(looked_at, val, decoded_image, ledger=ledger, world=world)
    for _ in looking(
        threads=max(1, config.workers), sampled=config.check == "sample", title="images to score on"
    ):
        pass


def require_two_classes(train: LabelledTable, place: str) -> None:
    """Refuse images of one class, which any answer would be right of.

    Raises:
        DataError: they are of one.
    """
    present = np.flatnonzero(images_of_classes(train, train.class_count))
    if len(present) == 1:
        raise DataError(
            f"--train {place} has images of {named(present, train.classes)} alone; give a folder "
            "with a sub-folder for each of two classes or more, or shards that were packed from one"
        )


def class_warnings(train: LabelledTable, val: LabelledTable, places: tuple[str, str]) -> list[str]:
    """Return what is to be said of classes that are not both learnt and scored."""
    classes = max(train.class_count, val.class_count)
    learnt_Y, scored_Y = (images_of_classes(table, classes) for table in (train, val))
    return list(
        warnings_of_classes(learnt_Y, scored_Y, what="image", places=places, names=train.classes)
    )


def images_of_classes(table: LabelledTable, classes: int) -> NDArray[np.int64]:
    """Count the images of each class."""
    return np.bincount(np.concatenate([part.labels for part in table.parts]), minlength=classes)
