"""Train a student as planned, and export its encoder."""

from pathlib import Path
from typing import Any

from milan_pipeline.core.console import warn
from milan_pipeline.core.devices import pick_device
from milan_pipeline.images import IMAGENET_MEAN, IMAGENET_STD
from milan_pipeline.models.weight_files import export_encoder
from milan_pipeline.pretraining.feature_data import RunData
from milan_pipeline.pretraining.phi_s_file import keep_phi_s
from milan_pipeline.pretraining.pixel_data import PixelData
from milan_pipeline.pretraining.task import Pretraining
from milan_pipeline.shards.cache import CacheConfig
from milan_pipeline.stages.pretrain.command import Pretrain
from milan_pipeline.stages.pretrain.plan import AVERAGED, PretrainPlan, plan
from milan_pipeline.stages.shared.training import ledger_of, train_as_planned, trainer_of
from milan_pipeline.stages.shared.training_options import Process
from milan_pipeline.weights.loaded_run import trained_encoder


def train(config: Pretrain, process: Process) -> None:
    """Train to the last step and export the encoder, together with the other processes."""
    planned, world = plan(config, process.device), process.world
    if not planned.has_work(world):
        return
    config, data = planned.config, planned.data
    student, to_examples = planned.built[0].to(process.device), planned.to_examples
    if world.leads:
        planned.warn()
    cache = config.cache_config()
    if cache is not None and world.leads:
        _warn_of_small_cache(cache, data)
    ledger = None  # an image that has targets could be decoded once: it must have changed
    if isinstance(data, PixelData):
        ledger = ledger_of(config, "train", int(data.samples.counts(0).sum()))

    def began() -> None:
        if isinstance(data, RunData):
            _keep_phi_s(config.folder, data)

    def finish(counts: dict[str, Any]) -> dict[str, Any]:
        _export(planned)
        unreadable = 0 if ledger is None else ledger.count
        return counts | {"missing": data.missing, "unreadable": unreadable}

    others = data.other_grids(student) if isinstance(data, RunData) else None
    task = Pretraining(student, data.targets(), planned.recipe, others)
    trainer = trainer_of(planned, task, world, ledger)
    train_as_planned(planned, process, trainer, to_examples, began=began, finish=finish)


def _warn_of_small_cache(cache: CacheConfig, data: RunData | PixelData) -> None:
    """Say so where pieces will be evicted before the shuffle comes back to them."""
    if cache.max_bytes < data.shuffled_bytes:
        warn(
            f"--cache-gb {cache.max_bytes / 1e9:g} is less than the "
            f"{data.shuffled_bytes / 1e9:.3g} GB that are shuffled together ({data.order.lanes} "
            f"lanes of --shuffle-block {data.order.block}), so that shards are read again and "
            "again; give more"
        )


def _keep_phi_s(folder: Path, data: RunData) -> None:
    fitted = {each.name: each.phi_s for each in data.teachers if each.phi_s is not None}
    if fitted:
        keep_phi_s(folder, fitted)


def _export(planned: PretrainPlan) -> None:
    """Write the encoder and, where there is one, its moving average."""
    folder, (_, arguments) = planned.config.folder, planned.built
    for name in planned.exports:
        encoder = trained_encoder(folder, arguments, averaged=name == AVERAGED)
        export_encoder(
            folder,
            encoder,
            arguments,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            name=name,
            licence=planned.data.licence,
        )


def describe(config: Pretrain) -> None:
    """Say how long the run is and what it will read and write."""
    processes = config.count_processes()
    planned = plan(config, pick_device(config.device))
    planned.describe(planned.built[0], processes)
    planned.warn()
