"""Train a student as planned, and export its encoder."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import torch

from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import say, say_nothing_to_do, warn
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import lanes_of
from milan_pipeline.data.stream import batches
from milan_pipeline.images import IMAGENET_MEAN, IMAGENET_STD
from milan_pipeline.pretrain.examples import Batch
from milan_pipeline.pretrain.feature_data import RunData
from milan_pipeline.pretrain.pixel_data import PixelData
from milan_pipeline.pretrain.task import Pretraining
from milan_pipeline.shards.cache import CacheConfig
from milan_pipeline.training.meter import in_words
from milan_pipeline.training.trainer import Trainer, train_into
from milan_pipeline.weights.files import export_encoder
from milan_pipeline.weights.loaded_run import trained_encoder
from stages.pretrain.plan import Plan, plan
from stages.shared.training import ledger_of

if TYPE_CHECKING:
    from stages.pretrain.command import Pretrain


def train(
    config: "Pretrain",
    device: torch.device,
    world: World,
    stop: StopRequest,
    prepared: Callable[[], None],
) -> None:
    """Train to the last step and export the encoder, together with the other processes.

    Args:
        config: what to train.
        device: of this process.
        world: all processes.
        stop: asked after each step.
        prepared: called when all are ready, before the first of them writes anything.
    """
    planned = plan(config, device)
    config, data, total = planned.config, planned.data, planned.training.total_steps
    if planned.is_done:
        if world.leads:
            say_nothing_to_do(config.out, f"{total} steps are done")
        return
    lanes_of(world.rank, world.size, range(data.order.lanes))  # or say which sizes fit
    student, to_examples = planned.built[0].to(device), planned.to_examples
    cache = config.cache_config()
    if cache is not None and world.leads:
        _warn_of_small_cache(cache, data)

    ledger = None  # an image that has targets could be decoded once: it must have changed
    if isinstance(data, PixelData):
        ledger = ledger_of(config, "train", int(data.samples.counts(0).sum()))

    def batches_from(steps: range) -> Generator[Batch, None, None]:
        return batches(
            data.samples,
            data.order,
            to_examples,
            steps=steps,
            workers=config.workers,
            world=world,
            pin_memory=device.type == "cuda",
            cache=cache,
            ledger=ledger,
        )

    def finish(counts: dict[str, Any]) -> dict[str, Any]:
        _export(planned)
        unreadable = 0 if ledger is None else ledger.count
        return counts | {"missing": data.missing, "unreadable": unreadable}

    task = Pretraining(student, data.targets(), planned.recipe)
    trainer = Trainer(
        config.folder, task, planned.training, planned.clock, world=world, ledger=ledger
    )
    counts = train_into(
        config.folder,
        trainer,
        batches_from,
        stop,
        world=world,
        record=planned.record,
        prepared=prepared,
        finish=finish,
    )
    if world.leads:
        say(f"{config.out}: {in_words(counts)}", out=config.out, **counts)


def _warn_of_small_cache(cache: CacheConfig, data: RunData | PixelData) -> None:
    """Say so where pieces will be evicted before the shuffle comes back to them."""
    if cache.max_bytes < data.shuffled_bytes:
        warn(
            f"--cache-gb {cache.max_bytes / 1e9:g} is less than the "
            f"{data.shuffled_bytes / 1e9:.3g} GB that are shuffled together ({data.order.lanes} "
            f"lanes of --shuffle-block {data.order.block}), so that shards are read again and "
            "again; give more"
        )


def _export(planned: Plan) -> None:
    """Write the encoder and, where there is one, its moving average."""
    folder, (_, arguments) = planned.config.folder, planned.built
    averaged_too = planned.config.ema_decay is not None
    for name in ("encoder", "encoder-ema") if averaged_too else ("encoder",):
        encoder = trained_encoder(folder, arguments, averaged=name == "encoder-ema")
        export_encoder(folder, encoder, arguments, mean=IMAGENET_MEAN, std=IMAGENET_STD, name=name)
