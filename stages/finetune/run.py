"""Train a classifier as planned: score it on the way, export it, and tell how good it is."""

from milan_pipeline.cluster.world import World
from milan_pipeline.core.devices import pick_device
from milan_pipeline.evaluate.classification.model import write_classifier
from milan_pipeline.evaluate.classification.task import Classification
from milan_pipeline.evaluate.classification.views import TrainingViews
from milan_pipeline.stages.finetune.check import require_images
from milan_pipeline.stages.finetune.command import Finetune
from milan_pipeline.stages.finetune.evaluate import evaluate_only, evaluator_of, plan_evaluation
from milan_pipeline.stages.finetune.plan import plan, require_partners
from milan_pipeline.stages.shared.checking import check_once
from milan_pipeline.stages.shared.labelled import train_labelled
from milan_pipeline.stages.shared.training_options import Process


def train(config: Finetune, process: Process) -> None:
    """Train to the last step and export the classifier, together with the other processes."""
    if config.eval_only:
        evaluate_only(config, process)
        return
    planned, world = plan(config, process.device, world=process.world), process.world
    if not planned.has_work(world):
        return
    recipe, views = planned.recipe, TrainingViews(planned.views)
    if world.leads:
        planned.warn()
    require_partners(planned, world.size)
    check_once(planned, world, lambda: planned.check(world))
    config, (model, description) = planned.config, planned.built
    classes = planned.train.class_count
    model = model.to(process.device)

    train_labelled(
        planned,
        process,
        Classification(model, recipe, classes=classes, rank=world.rank),
        views,
        evaluator_of(config, model, description, planned.val),
        write=lambda name, state, about: write_classifier(
            config.folder, name, state, description, about
        ),
        is_due=planned.is_due,
    )


def describe(config: Finetune) -> None:
    """Say how long the run is and what it will read and write."""
    processes, device = config.count_processes(), pick_device(config.device)
    if config.eval_only:
        scored = plan_evaluation(config, device)
        scored.describe()
        if config.check is not None:
            require_images(config, scored.val, World())
        return
    planned = plan(config, device)
    planned.describe(planned.built[0], processes)
    require_partners(planned, processes)
    planned.warn()
    if config.check is not None:
        planned.check(World())
