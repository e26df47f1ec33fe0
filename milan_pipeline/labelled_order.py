"""Which labelled sample comes when, settled from how many there are, and how mixed batches are."""

import numpy as np

from milan_pipeline.errors import ConfigError
from milan_pipeline.labelled import LabelledTable
from milan_pipeline.messages import warn
from milan_pipeline.order import EpochOrder, OrderConfig, default_batch, default_lanes

MIXED_ENOUGH = 0.8


def labelled_order(
    table: LabelledTable, *, batch: int | None, lanes: int | None, block: int, seed: int, usual: int
) -> OrderConfig:
    """Settle the order; None leaves a choice to the data.

    Args:
        table: of labelled samples.
        batch: samples in a global batch; None is `usual`, for small data less.
        lanes: of the order; None is up to 64.
        block: samples of a lane that are shuffled together.
        seed: of the order.
        usual: the published batch.

    Raises:
        ConfigError: the table holds fewer samples than a batch.
    """
    batch = batch or default_batch(table.samples, usual)
    if batch > table.samples:
        raise ConfigError(
            f"--batch-size {batch} is more than the {table.samples} labelled images; give at most "
            f"{table.samples}, or more images"
        )
    return OrderConfig(seed=seed, batch=batch, lanes=lanes or default_lanes(batch), block=block)


def classes_of_a_batch(table: LabelledTable, order: OrderConfig) -> tuple[int, float]:
    """Count the classes in the first batch.

    Returns:
        How many there are, and how many a batch that is drawn at random has on average.
    """
    batch = EpochOrder(table.counts(0), order, 0)
    rows = np.concatenate([batch.lane_step(lane, 0) for lane in range(order.lanes)])
    found = {int(table.parts[part].labels[row]) for part, row in rows}
    counts = np.bincount(np.concatenate([part.labels for part in table.parts]))
    missed_Y = (1 - counts / counts.sum()) ** order.batch
    return len(found), float((1 - missed_Y).sum())


def warn_of_class_order(table: LabelledTable, order: OrderConfig, place: str) -> None:
    """Say so where batches have few classes, since samples come sorted by them.

    Args:
        table: of class numbers, to learn from.
        order: that it is read in.
        place: where it lies.
    """
    found, expected = classes_of_a_batch(table, order)
    if found < MIXED_ENOUGH * expected:
        warn(
            f"--train {place} is sorted by class: the first batch of {order.batch} has {found} "
            f"classes where one drawn at random has {expected:.0f}; give more --lanes or a larger "
            f"--shuffle-block than {order.block}, or shards of `milan-pipeline pack-images`, which "
            "shuffles"
        )
