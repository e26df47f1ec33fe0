"""Which labelled sample comes when, settled from how many there are."""

from milan_pipeline.errors import ConfigError
from milan_pipeline.labelled import LabelledTable
from milan_pipeline.order import OrderConfig, default_batch, default_lanes


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
