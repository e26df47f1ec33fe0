"""What `finetune` looks at before its first step: the classes, and the images to score on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import warn
from milan_pipeline.data.labelled import LabelledTable, decoded_image
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.class_coverage import named, warnings_of_classes
from milan_pipeline.evaluate.sample_checks import looked_at
from milan_pipeline.stages.finetune.command import Finetune
from milan_pipeline.stages.shared.checking import unwritten_ledger
from milan_pipeline.training.optim import BASE_BATCH

MAX_CLASSES = 1_000_000
PUBLISHED_RATE = 1e-4
FEW_IMAGES = 20_000  # twice what `finetune-few-labels` was tried with


def require_images(config: Finetune, val: LabelledTable, world: World) -> None:
    """Decode the images to score on; every process must call this.

    Raises:
        DataError: more cannot be decoded than `--max-bad-fraction` allows.
    """
    ledger = unwritten_ledger(config, "val", val.samples)
    sampled = config.check == "sample"
    found = looked_at(
        val,
        _readable_class,
        ledger=ledger,
        world=world,
        threads=max(1, config.loaders),
        sampled=sampled,
        title="images to score on",
    )
    readable = sorted(set().union(*world.gather(set(found))))
    lost = np.setdiff1d(classes_of(val), np.array(readable, dtype=np.int64))
    if world.leads and len(lost) and not sampled:
        warn(
            f"no image of {named(lost, val.classes)} in --val {config.val} can be decoded: the "
            "scores say nothing of it; repair these images"
        )


def _readable_class(sample: dict[str, Any]) -> int:
    """Decode a sample's image, and return its class."""
    decoded_image(sample)
    return int(sample["label"])


def require_classes(train: LabelledTable, place: str) -> None:
    """Refuse images of one class, which any answer would be right of, and numbers beyond reason.

    Raises:
        DataError: they are of one class, or a class number is too large for a head.
    """
    present = classes_of(train)
    if len(present) == 1:
        raise DataError(
            f"--train {place} has only images of {named(present, train.classes)}; give a folder "
            "with a sub-folder for each of two classes or more, or shards that were packed from "
            "one"
        )
    if train.class_count > MAX_CLASSES:
        raise DataError(
            f"--train {place} has images of {named(present[-1:])}, and a classifier has an output "
            f"for each number up to the largest; number the {len(present)} classes from 0"
        )


def class_warnings(train: LabelledTable, val: LabelledTable, places: tuple[str, str]) -> list[str]:
    """Return what is to be said of classes that are not both learnt and scored."""
    learnt, scored, names = classes_of(train), classes_of(val), train.classes
    of_outputs = warnings_of_classes(
        learnt, scored, what="image", places=places, names=names, outputs=train.class_count
    )
    return list(of_outputs)


def rate_warning(base_lr: float, batch: int, images: int) -> str | None:
    """Say so where few images are trained on at the published rate, which is for many.

    Args:
        base_lr: `--base-lr`.
        batch: images in a batch, which the rate is scaled to.
        images: to train on.
    """
    if base_lr != PUBLISHED_RATE or batch >= BASE_BATCH or images > FEW_IMAGES:
        return None
    return (
        f"--train has {images} images, and in batches of {batch} the published --base-lr "
        f"{base_lr:g} is a rate of {base_lr * batch / BASE_BATCH:.3g}, which learns little from so "
        "few; try --config finetune-few-labels"
    )


def classes_of(table: LabelledTable) -> NDArray[np.int64]:
    """Return the numbers of the classes that there are images of, each once and in order."""
    return np.unique(np.concatenate([part.labels for part in table.parts]))
