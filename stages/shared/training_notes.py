"""Tells where a run has fewer images or processes than its options seem to say."""

from milan_pipeline.cli.options import AUTO
from milan_pipeline.core.console import note, warn
from milan_pipeline.data.order import OrderConfig, usable_workers
from milan_pipeline.stages.shared.training_options import TrainingOptions


def tell_of_left_out(batch: int, left_out: int) -> None:
    """Say so where batches of a size leave out images of each epoch."""
    if left_out:
        note(
            f"batches of --batch-size {batch} leave out {left_out} images of each epoch, since all "
            "batches are whole; each epoch leaves out others"
        )


def tell_of_loaders(config: TrainingOptions, order: OrderConfig, processes: int) -> None:
    """Say so where fewer loader processes run than are asked for: they share lanes equally."""
    own, wanted = order.lanes // processes, config.loaders
    usable = usable_workers(wanted, own)
    if usable < wanted:
        tell = note if config.workers == AUTO else warn
        tell(
            f"--workers {config.workers}: {usable} loader processes run in each process and not "
            f"{wanted}, since they share its {own} of {order.lanes} lanes equally; another --out "
            "may have more --lanes"
        )
