"""Tells where a run does not do what its options seem to say."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

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


def warn_of_rising_rate(base_lr: float, min_lr: float, batch: int, published: int) -> None:
    """Say so where the learning rate rises to `--min-lr` in place of falling.

    Args:
        base_lr: `--base-lr`, for a published batch.
        min_lr: `--min-lr`, which is not scaled.
        batch: images in a batch.
        published: images in a published batch.
    """
    peak = base_lr * batch / published
    if min_lr > peak:
        warn(
            f"--min-lr {min_lr:g} is above {peak:.3g}, to which --base-lr {base_lr:g} is scaled "
            f"for batches of {batch}, so that the learning rate rises to the end; give a higher "
            "--base-lr or a lower --min-lr"
        )


def warn_of_idle(options: Iterable[str] | Mapping[str, Any], config: Any, why: str) -> None:
    """Say which options change nothing though they are given.

    Args:
        options: their names; or what each is if it is not given, where that is not its default.
        config: the options.
        why: they change nothing.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    usual = defaults | (dict(options) if isinstance(options, Mapping) else {})
    for name in options:
        if (given := getattr(config, name)) != usual[name]:
            warn(f"--{name.replace('_', '-')} {given} changes nothing {why}")
