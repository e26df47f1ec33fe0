"""What `finetune` and `segment` share: train an encoder on labelled images, and score it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from milan_pipeline.core.console import say, say_nothing_to_do
from milan_pipeline.data.labelled import LabelledTable
from milan_pipeline.data.order import OrderConfig
from milan_pipeline.encoders.backbone import Backbone
from milan_pipeline.encoders.load import fingerprint, load_backbone
from milan_pipeline.evaluate.scores_file import (
    Result,
    has_scores,
    require_own_scores,
    write_stage_scores,
)
from milan_pipeline.models.kernels import suit_cpu
from milan_pipeline.provenance.record import StageRecord, read_record
from milan_pipeline.stages.shared.checking import warn_of_other_parts, warn_of_other_scores
from milan_pipeline.stages.shared.labelled_options import LabelledOptions
from milan_pipeline.stages.shared.scores import labelled_table, write_files
from milan_pipeline.stages.shared.training import (
    TrainingPlan,
    ledger_of,
    order_choice,
    stage_record,
    train_as_planned,
    trainer_of,
)
from milan_pipeline.stages.shared.training_options import Process
from milan_pipeline.training.checkpoints import newest_checkpoint
from milan_pipeline.training.compiling import compile_blocks, explained_compiler
from milan_pipeline.training.evaluations import BEST, Evaluations
from milan_pipeline.training.run_folder import run_lock
from milan_pipeline.training.trainer import Task
from milan_pipeline.training.validation import (
    UNAVERAGED,
    Evaluator,
    Validation,
    without_validation,
)

LabelledT = TypeVar("LabelledT", bound=LabelledOptions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledPlan(TrainingPlan[LabelledT]):
    """A run on labelled images with nothing left open.

    Attributes:
        train: the labelled images to train on.
        val: the labelled images to score on.
        backbone: the encoder that the run begins with.
        last: the name of the weights that training ends with.
        key: the score that chooses the best weights.
    """

    last: ClassVar[str]
    key: ClassVar[str]

    train: LabelledTable
    val: LabelledTable
    backbone: Backbone

    @property
    def is_done(self) -> bool:
        """Whether all steps are done, scored on the images that there are now, and written."""
        previous, folder = read_record(self.record.url), self.config.folder
        known = previous is not None and previous["extent"].get("val") == self.val.source
        # Lost scores are written again, if there are weights to go on from.
        there = has_scores(str(folder)) or newest_checkpoint(folder) is None
        return super().is_done and known and there

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that are scored; none where they are not known."""
        return self.val.classes

    @property
    def exports(self) -> tuple[str, ...]:
        """The weights that training ends with, the best, and the last ones not averaged."""
        both = (self.last, BEST)
        return both if self.config.ema_decay is None else (*both, f"{self.last}-{UNAVERAGED}")

    @property
    def card(self) -> dict[str, Any]:
        """What the scores' file tells of how they were measured, beside options and inputs."""
        return {}

    @property
    def evaluations(self) -> Evaluations:
        """The scores on the images that there are now."""
        return Evaluations(self.config.folder, key=self.key, val=self.val.source)

    def describe_data(self) -> None:
        """Say how many images there are, and of how many classes."""
        classes = getattr(self.config, "classes", self.train.class_count)
        say(
            f"images: {self.train.samples} to train on, {self.val.samples} to score on, "
            f"classes: {classes}",
            images={"train": self.train.samples, "val": self.val.samples},
            classes=classes,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationPlan(Generic[LabelledT]):
    """An evaluation with nothing left open.

    Attributes:
        config: what was left to the machine or the model is filled in.
        model: the trained model, on the CPU.
        val: the images to score on.
        class_names: of the classes that are scored; none where they are not known.
        record: `config.json`.
        evaluator: makes what scores the model, once that is on its device.
        card: see `LabelledPlan.card`.
    """

    config: LabelledT
    model: nn.Module
    val: LabelledTable
    class_names: tuple[str, ...]
    record: StageRecord
    evaluator: Callable[[], Evaluator]
    card: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def describe(self) -> None:
        """Say how many images there are to score."""
        say(f"images to score: {self.val.samples}", images_to_score=self.val.samples)


def settled_parts(
    stage: str,
    config: LabelledT,
    tables: tuple[LabelledTable, LabelledTable],
    published_batch: int,
    image_size: int | None,
) -> dict[str, Any]:
    """Load the encoder and settle the order: the fields of a `LabelledPlan`.

    Raises:
        ConfigError: options do not fit each other, the encoder or the data.
        MissingDataError, MismatchError: there is no such encoder, or its run is not done, or
            another stage wrote scores into the folder.
    """
    train, val = tables
    order: OrderConfig = order_choice(config).settled(train.samples, published_batch)
    backbone = load_backbone(
        config.encoder,
        image_size=image_size,
        random_init=config.random_init,
        seed=config.seed,
        allow_unfinished=config.allow_unfinished,
    )
    chosen: dict[str, Any] = {"image_size": backbone.image_size}
    config = dataclasses.replace(config, batch_size=order.batch, lanes=order.lanes, **chosen)
    encoder = fingerprint(config.encoder, random_init=config.random_init)
    # Nothing is learnt of the images to score on, so they may be mended while a run goes on.
    extent = {"val": val.source}
    record = stage_record(stage, config, extent=extent, encoder=encoder, train=train.source)
    require_own_scores(record)
    parts = {"config": config, "train": train, "val": val, "order": order}
    return parts | {"backbone": backbone, "record": record}


def train_labelled(
    planned: LabelledPlan[Any],
    process: Process,
    task: Task[Any],
    views: Callable[..., Any],
    evaluator: Evaluator,
    *,
    write: Callable[[str, Mapping[str, Tensor], Mapping[str, Any]], None],
    is_due: Callable[[int], bool],
) -> None:
    """Train to the last step, score the model on the way, and write weights and scores.

    Args:
        planned: the run.
        process: which of the processes this is.
        task: what is trained.
        views: turns samples into examples; see `stream.batches`.
        evaluator: scores the task's model.
        write: writes weights under a name into the run folder; see `Validation`.
        is_due: whether to score the model after a step.
    """
    config, world = planned.config, process.world
    ledger = ledger_of(config, "train", planned.train.samples)
    trainer = trainer_of(planned, task, world, ledger)
    validation = Validation(
        folder=config.folder,
        model=task.model,
        average=trainer.average,
        evaluator=evaluator,
        val=planned.val.source,
        write=write,
        last=planned.last,
        scheduled=is_due,
        clock=planned.clock,
        total=planned.training.total_steps,
        world=world,
    )
    results: list[Result] = []

    def finish(counts: dict[str, Any]) -> dict[str, Any]:
        counts = without_validation(counts, validation.seconds)
        metrics, notes = validation.conclude(counts["steps"])
        write_files(config.out, evaluator.pictures(validation.averaged()))
        extras = {
            "train": planned.train.samples,
            "val": planned.val.samples,
            "unreadable": {"train": ledger.count, "val": evaluator.ledger.count},
            "images_per_second": counts["images_per_second"],
            "class_names": list(planned.class_names),
            **planned.card,
            **notes,
        }
        results.append(write_stage_scores(planned.record, metrics, extras))
        return counts | {"unreadable": extras["unreadable"]}

    if world.leads:
        warn_of_other_scores(validation, str(config.val))
        warn_of_other_parts(planned, world)
    train_as_planned(planned, process, trainer, views, finish=finish, validator=validation)
    if world.leads:
        result = results[0]
        text = labelled_table(result, evaluator.columns)
        say(text, metrics=result.metrics, intervals=result.intervals)


def evaluate_as_planned(planned: EvaluationPlan[Any], process: Process) -> None:
    """Score a trained model, together with the other processes."""
    config, record, world = planned.config, planned.record, process.world
    require_own_scores(record)
    if record.previous_state() == "done" and has_scores(config.out):
        if world.leads:
            say_nothing_to_do(config.out, "the scores are there")
        return
    planned.model.to(process.device)
    suit_cpu(planned.model, bf16=config.precision == "bf16")
    if config.compile:
        compile_blocks(planned.model)
    evaluator = planned.evaluator()
    world.wait_for_all()  # until all have read what an earlier run left
    process.prepared()
    with explained_compiler():
        scores = evaluator.score(world, process.stop)
    if not world.leads:
        return
    unreadable = evaluator.ledger.count
    with run_lock(config.folder):
        record.begin()
        write_files(config.out, scores.files() | evaluator.pictures())
        extras = {
            "val": planned.val.samples,
            "unreadable": {"val": unreadable},
            "class_names": list(planned.class_names),
            **planned.card,
            **scores.notes(),
        }
        result = write_stage_scores(record, scores.per_cent(), extras)
        record.finish(scores.counts() | {"unreadable": unreadable})
    text, found = labelled_table(result, evaluator.columns), result.intervals
    say(text, out=config.out, metrics=result.metrics, intervals=found)
