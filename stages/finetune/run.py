"""The doing of what `finetune` has planned: train, examine, export, and say how good it is."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import torch

from milan_pipeline.cluster.world import World
from milan_pipeline.core.console import say, say_nothing_to_do
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import lanes_of
from milan_pipeline.data.stream import batches
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.evaluate.classification.model import write_classifier
from milan_pipeline.evaluate.classification.scoring import ExamConfig, Examiner
from milan_pipeline.evaluate.classification.task import Classification
from milan_pipeline.evaluate.classification.views import LabelledBatch, TrainingViews
from milan_pipeline.evaluate.results import Result, write_stage_scores
from milan_pipeline.training.meter import in_words
from milan_pipeline.training.trainer import Trainer, train_into
from milan_pipeline.training.validation import Exams, without_exams
from stages.finetune.plan import Plan, plan
from stages.shared.training import ledger_of

if TYPE_CHECKING:
    from stages.finetune.command import Finetune


def train(
    config: "Finetune",
    device: torch.device,
    world: World,
    stop: StopRequest,
    prepared: Callable[[], None],
) -> None:
    """Train to the last step and export the classifier, together with the other processes.

    Args:
        config: what to train.
        device: of this process.
        world: all processes.
        stop: asked after each step.
        prepared: called when all are ready, before the first of them writes anything.
    """
    planned = plan(config, device, remember=True)
    total = planned.training.total_steps
    if planned.is_done:
        if world.leads:
            say_nothing_to_do(config.out, f"{total} steps are done")
        return
    lanes_of(world.rank, world.size, range(planned.order.lanes))  # or say which sizes fit
    if world.leads:
        planned.warn()
    views, cache = TrainingViews(planned.views), config.cache_config()
    ledger = ledger_of(config, "train", planned.learnt.samples)
    val_ledger = ledger_of(config, "val", planned.val.samples)
    scores: list[Result] = []

    def batches_from(steps: range) -> Generator[LabelledBatch, None, None]:
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

    model, classes = planned.built[0].to(device), planned.learnt.class_count
    task = Classification(model, planned.recipe, classes=classes, rank=world.rank)
    trainer = Trainer(
        config.folder, task, planned.training, planned.clock, world=world, ledger=ledger
    )
    exams = _exams(planned, trainer, val_ledger, world)

    def finish(counts: dict[str, Any]) -> dict[str, Any]:
        counts = without_exams(counts, exams.seconds)
        metrics = exams.conclude(counts["steps"])
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
    best = scores.metrics.get("best-top1", scores.metrics["top1"])
    return (
        f"{'encoder':{width}}   top-1 %   top-5 %   best top-1 %      train      val   skipped\n"
        f"{scores.name:{width}}   {scores.metrics['top1']:7.2f}   {scores.metrics['top5']:7.2f}   "
        f"{best:12.2f}   {scores.extras.get('train', 0):8d}   {scores.extras['val']:6d}   "
        f"{sum(scores.extras['unreadable'].values()):7d}"
    )


def exam_config(config: "Finetune", *, bf16: bool) -> ExamConfig:
    """Say how to examine with what training may take."""
    return ExamConfig(batch=config.micro_batch, threads=max(1, config.workers), bf16=bf16)


def _exams(
    planned: Plan, trainer: Trainer[LabelledBatch], ledger: RunLedger, world: World
) -> Exams:
    config, (model, description) = planned.config, planned.built
    examining = exam_config(config, bf16=config.precision == "bf16")
    examiner = Examiner(model, description, planned.val, ledger, examining)

    def is_due(step: int) -> bool:
        epoch, within = planned.clock.locate(step)
        return within == 0 and epoch % config.eval_every == 0

    return Exams(
        folder=config.folder,
        model=model,
        average=trainer.average,
        score=lambda among, weights: examiner.score(among, weights).per_cent(),
        write=lambda name, state: write_classifier(config.folder, name, state, description),
        key="top1",
        last="finetuned",
        is_due=is_due,
        clock=planned.clock,
        total=planned.training.total_steps,
        world=world,
    )
