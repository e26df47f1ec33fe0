"""Train a segmenter as planned: score it on the way, export it, and tell how good it is."""

from torch import nn

from milan_pipeline.cluster.world import World
from milan_pipeline.core.devices import pick_device
from milan_pipeline.evaluate.segmentation.files import write_segmenter
from milan_pipeline.evaluate.segmentation.task import Segmentation
from milan_pipeline.evaluate.segmentation.views import MaskedViews
from milan_pipeline.stages.segment.check import check_scored
from milan_pipeline.stages.segment.choices import labels_of, warn_of_idle_options
from milan_pipeline.stages.segment.command import Segment
from milan_pipeline.stages.segment.evaluate import (
    evaluate_only,
    evaluator_of,
    plan_evaluation,
    warn_of_other_masks,
)
from milan_pipeline.stages.segment.plan import norms_are_shared, plan
from milan_pipeline.stages.shared.checking import check_once
from milan_pipeline.stages.shared.labelled import train_labelled
from milan_pipeline.stages.shared.training_options import Process


def train(config: Segment, process: Process) -> None:
    """Train to the last step and export the segmenter, together with the other processes."""
    if config.eval_only:
        evaluate_only(config, process)
        return
    planned, world = plan(config, process.device, world=process.world), process.world
    if not planned.has_work(world):
        return
    planned.require_pairs(world.size, process.device)
    recipe = planned.recipe
    if world.leads:
        planned.warn()
    check_once(planned, world, lambda: planned.check(world))
    config, (model, description) = planned.config, planned.built
    if norms_are_shared(world.size, process.device):
        # In place of each BatchNorm, under its names: statistics of all processes' images.
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    model = model.to(process.device)
    train_labelled(
        planned,
        process,
        Segmentation(model, recipe, rank=world.rank),
        MaskedViews(planned.views, labels_of(config)),
        evaluator_of(config, model, description, planned.val),
        write=lambda name, state, about: write_segmenter(
            config.folder, name, state, description, about
        ),
        is_due=lambda step: step % config.eval_every == 0,
    )


def describe(config: Segment) -> None:
    """Say how long the run is and what it will read and write."""
    processes, device = config.count_processes(), pick_device(config.device)
    if config.eval_only:
        scored = plan_evaluation(config, device)
        scored.describe()
        warn_of_other_masks(config)
        warn_of_idle_options(scored.config)
        if config.check is not None:
            check_scored(scored.config, scored.val, World())
        return
    planned = plan(config, device)
    planned.describe(planned.built[0], processes)
    planned.require_pairs(processes, device)
    planned.warn()
    if config.check is not None:
        planned.check(World())
