"""The doing of what `segment` has planned: train, examine, export, draw, say how good it is."""

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from milan_pipeline import storage
from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import say, say_nothing_to_do
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import lanes_of
from milan_pipeline.data.stream import batches
from milan_pipeline.evaluate.results import Result, write_stage_scores
from milan_pipeline.evaluate.segmentation.files import SegmenterDescription, write_segmenter
from milan_pipeline.evaluate.segmentation.inference import InferenceConfig
from milan_pipeline.evaluate.segmentation.model import Segmenter
from milan_pipeline.evaluate.segmentation.scoring import (
    SegmentationExamConfig,
    SegmentationExaminer,
)
from milan_pipeline.evaluate.segmentation.task import PUBLISHED_BATCH, Segmentation
from milan_pipeline.evaluate.segmentation.views import MaskedBatch, MaskedViews
from milan_pipeline.training.meter import in_words
from milan_pipeline.training.trainer import Trainer, train_into
from milan_pipeline.training.validation import Exams, without_exams
from stages.segment.choices import labels_of, scale_rule
from stages.segment.plan import Plan, norms_are_shared, plan
from stages.shared.training import ledger_of

if TYPE_CHECKING:
    from stages.segment.command import Segment


FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
PICTURE = "examples.png"


def train(
    config: "Segment",
    device: torch.device,
    world: World,
    stop: StopRequest,
    prepared: Callable[[], None],
) -> None:
    """Train to the last step and export the segmenter, together with the other processes.

    Args:
        config: what to train.
        device: of this process.
        world: all processes.
        stop: asked after each step.
        prepared: called when all are ready, before the first of them writes anything.
    """
    planned = plan(config, device, remember=True)
    config, total = planned.config, planned.training.total_steps
    if planned.is_done:
        if world.leads:
            say_nothing_to_do(config.out, f"{total} steps are done")
        return
    lanes_of(world.rank, world.size, range(planned.order.lanes))  # or say which sizes fit
    planned.require_pairs(world.size, device)
    views, cache = MaskedViews(planned.views, labels_of(config)), config.cache_config()
    ledger = ledger_of(config, "train", planned.learnt.samples)
    val_ledger = ledger_of(config, "val", planned.val.samples)
    scores: list[Result] = []

    def batches_from(steps: range) -> Generator[MaskedBatch, None, None]:
        return batches(
            planned.learnt,
            planned.order,
            views,
            steps=steps,
            workers=config.workers,
            world=world,
            pin_memory=device.type == "cuda",
            cache=cache,
            ledger=ledger,
        )

    model, description = planned.built
    if norms_are_shared(world.size, device):
        # In place of each BatchNorm, under its names: statistics of all processes' images.
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    task = Segmentation(model.to(device), planned.recipe, rank=world.rank)
    trainer = Trainer(
        config.folder, task, planned.training, planned.clock, world=world, ledger=ledger
    )
    examiner = SegmentationExaminer(
        model, planned.val, val_ledger, labels_of(config), exam_config(config, model, description)
    )
    exams = _exams(planned, trainer, examiner, world)

    def finish(counts: dict[str, Any]) -> dict[str, Any]:
        counts = without_exams(counts, exams.seconds)
        metrics = exams.conclude(counts["steps"])
        averaged = None if trainer.average is None else trainer.average.state_dict()
        storage.put_bytes(storage.join(config.out, PICTURE), examiner.draw(averaged))
        extras = {
            "train": planned.learnt.samples,
            "val": planned.val.samples,
            "unreadable": {"train": ledger.count, "val": val_ledger.count},
            "images_per_second": counts["images_per_second"],
        }
        scores.append(write_stage_scores(planned.record, metrics, extras))
        return counts | {"unreadable": extras["unreadable"]}

    counts = train_into(
        config.folder,
        trainer,
        batches_from,
        stop,
        world=world,
        record=planned.record,
        prepared=prepared,
        finish=finish,
        after_step=exams.after_step,
    )
    if world.leads:
        say(f"{config.out}: {in_words(counts)}", out=config.out, **counts)
        say(table_of(scores[0]), metrics=scores[0].metrics)


def table_of(scores: Result) -> str:
    """Lay scores out as a table of one line."""
    width = max(len(scores.name), len("encoder"))
    miou, macc, aacc = (scores.metrics[name] for name in ("miou", "macc", "aacc"))
    return (
        f"{'encoder':{width}}   mIoU %   mAcc %   aAcc %    train      val   skipped\n"
        f"{scores.name:{width}}   {miou:6.2f}   {macc:6.2f}   {aacc:6.2f}   "
        f"{scores.extras.get('train', 0):6d}   {scores.extras['val']:6d}   "
        f"{sum(scores.extras['unreadable'].values()):7d}"
    )


def exam_config(
    config: "Segment", model: Segmenter, description: SegmenterDescription
) -> SegmentationExamConfig:
    """Say how to examine with what training may take; the options are settled."""
    size, stride = config.image_size or 0, config.stride or 0
    inference = InferenceConfig(
        scale=scale_rule(config),
        factors=FACTORS if config.multi_scale else (1.0,),
        flip=config.multi_scale,
        window=size if config.evaluate == "slide" else None,
        stride=stride,
        multiple=model.patch_size,
        batch=min(config.micro_batch, PUBLISHED_BATCH),
    )
    return SegmentationExamConfig(
        inference=inference,
        mean=description.mean,
        std=description.std,
        classes=description.spec.classes,
        threads=max(1, config.workers),
        bf16=config.precision == "bf16",
    )


def _exams(
    planned: Plan, trainer: Trainer[MaskedBatch], examiner: SegmentationExaminer, world: World
) -> Exams:
    config, (model, description) = planned.config, planned.built

    def write(name: str, state: Mapping[str, Tensor]) -> None:
        write_segmenter(config.folder, name, state, description)

    return Exams(
        folder=config.folder,
        model=model,
        average=trainer.average,
        score=lambda among, weights: examiner.score(among, weights).per_cent(),
        write=write,
        key="miou",
        last="segmenter",
        is_due=lambda step: step % config.eval_every == 0,
        clock=planned.clock,
        total=planned.training.total_steps,
        world=world,
    )
