"""What `segment` looks at before its first step: every mask, with its image."""

from collections.abc import Sequence

import numpy as np

from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import warn
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.errors import DataError
from milan_pipeline.evaluate.class_coverage import warnings_of_classes
from milan_pipeline.evaluate.segmentation.census import (
    MaskCensus,
    require_classes,
    require_labelled,
    require_usable,
    take_census,
)
from milan_pipeline.evaluate.segmentation.masks import TURN
from milan_pipeline.stages.segment.choices import labels_of
from milan_pipeline.stages.segment.command import Segment
from milan_pipeline.stages.shared.checking import unwritten_ledger

MOSTLY = 0.5


def check_masks(
    config: Segment,
    train: LabelledTable,
    val: LabelledTable,
    world: World,
    *,
    names: Sequence[str] = (),
) -> None:
    """Look at the masks to learn from and to score on; every process must call this.

    Args:
        config: the options.
        train: masks to learn from.
        val: masks to score on.
        world: the processes.
        names: of the classes, where they are known.

    Raises:
        DataError: masks cannot be used, or they have nothing to learn or to score on.
    """
    one, other = (
        census_of(config, what, table, world) for what, table in (("train", train), ("val", val))
    )
    require_usable(one, other)
    places = (f"--train {config.train}", f"--val {config.val}")
    whole = one.masks == train.samples and other.masks == val.samples
    try:
        require_classes(one, places[0])
        require_labelled(other, places[1])
    except DataError as error:
        if whole:
            raise
        if world.leads:
            warn(f"of the masks that were looked at, {error}")
        return
    if not world.leads:
        return
    _warn_of_turned(one, places[0])
    _warn_of_turned(other, places[1])
    learnt, scored = (np.flatnonzero(census.pixels_Y) for census in (one, other))
    classes = len(one.pixels_Y)
    for text in warnings_of_classes(
        learnt, scored, what="pixel", places=places, names=names, outputs=classes
    ):
        warn(text if whole else f"in the masks that were looked at, {text}")
    for census, place in zip((one, other), places, strict=True):
        if census.ignored_share > MOSTLY:
            warn(
                f"{census.ignored_share:.0%} of the pixels of the masks of {place} are ignored; "
                "see --ignore-index and --reduce-zero-label if that is not meant"
            )


def check_scored(config: Segment, val: LabelledTable, world: World) -> None:
    """Look at the masks that are scored alone; every process must call this.

    Raises:
        DataError: masks cannot be used, or have nothing to score on.
    """
    census = census_of(config, "val", val, world)
    require_usable(census)
    if census.masks == val.samples:
        require_labelled(census, f"--val {config.val}")
    if world.leads:
        _warn_of_turned(census, f"--val {config.val}")


def _warn_of_turned(census: MaskCensus, place: str) -> None:
    if census.turned:
        warn(
            f"{census.turned} of {census.masks} images of {place} are turned by their EXIF, which "
            "is ignored here; if their masks were drawn as a viewer shows them, "
            f"{TURN}"
        )


def census_of(config: Segment, what: str, table: LabelledTable, world: World) -> MaskCensus:
    """Look at the masks of one set, "train" or "val"; every process must call this.

    Raises:
        DataError: more images cannot be decoded than `--max-bad-fraction` allows.
    """
    return take_census(
        table,
        labels_of(config),
        ledger=unwritten_ledger(config, what, table.samples),
        world=world,
        threads=max(1, config.loaders),
        sampled=config.check == "sample",
    )
