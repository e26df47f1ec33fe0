"""Open labelled images in all processes of a run: the first reads, and the others receive.

Listing a million files takes a process 15 s, and reading their indices many requests. So neither is
done by each of 512 processes.
"""

from milan_pipeline.cluster.world import World
from milan_pipeline.data.labelled import Kind, LabelledTable, open_labelled
from milan_pipeline.stages.shared.labelled_options import LabelledOptions


def open_tables(
    config: LabelledOptions, *, kind: Kind, world: World | None
) -> tuple[LabelledTable, LabelledTable]:
    """Open the images to train on, in a drawn order, and those to score on, in their own.

    Args:
        config: the options.
        kind: of the labels.
        world: the processes of the run; the first one lists the images and reads the indices, and
            the others receive the tables. It keeps the labels that indices lack in the run folder.
            None keeps nothing.

    Raises:
        ConfigError: there are no such images.
        DataError: images have no labels.
    """
    labelled = _opened(config, str(config.train), kind, world)
    val = open_scored(config, kind=kind, world=world)
    train = labelled.subset(config.label_fraction, config.seed)
    return train.shuffled(config.seed), val


def open_scored(config: LabelledOptions, *, kind: Kind, world: World | None) -> LabelledTable:
    """Open the images to score on; see `open_tables`."""
    return _opened(config, config.val, kind, world)


def _opened(config: LabelledOptions, place: str, kind: Kind, world: World | None) -> LabelledTable:
    scans = config.scans if world else None
    return (world or World()).of_first(lambda: open_labelled(place, kind=kind, scans=scans))
