"""A small run, trained part by part in one process, as often as a test likes.

What the processes of tests of several processes do: train a small run, all together.
"""

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import nn

from milan_pipeline.cluster.world import World
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import OrderChoice
from milan_pipeline.data.pairs import PairSamples
from milan_pipeline.data.stream import batches, step_clock
from milan_pipeline.errors import InterruptedRunError
from milan_pipeline.evaluate.scores_file import Result
from milan_pipeline.models.build import build_student
from milan_pipeline.pretraining.examples import ToExamples
from milan_pipeline.pretraining.feature_data import open_run_data
from milan_pipeline.pretraining.task import Pretraining, PretrainingConfig
from milan_pipeline.training.checkpoints import newest_checkpoint, take_snapshot, write_checkpoint
from milan_pipeline.training.optim import make_optimiser, set_learning_rate
from milan_pipeline.training.trainer import Trainer, TrainingConfig
from tests.support.students import TINY_SPEC

STEPS = 8
CONFIG = TrainingConfig(
    batch=8,
    micro_batch=8,
    total_steps=STEPS,
    checkpoint_every=2,
    keep=2,
    log_every=3,
)
RECIPE = PretrainingConfig(
    batch=8,
    epochs=4,
    warmup_epochs=1.0,
    base_lr=0.02,
    weight_decay=0.05,
    bf16=False,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.25, 0.3),
)


def open_data(image_shards, *target_shards, phi_s=False):
    """Pairs of the session's shards, 24 in each of two views, in batches of 8.

    Args:
        image_shards: their folder.
        target_shards: a folder of each teacher; several are called "0", "1" and so on.
        phi_s: whether targets are standardised.
    """
    names = [str(n) for n in range(len(target_shards))] if len(target_shards) > 1 else [""]
    return open_run_data(
        str(image_shards),
        dict(zip(names, map(str, target_shards), strict=True)),
        views=None,
        phi_s=phi_s,
        on_missing="error",
        order=OrderChoice(batch=8, lanes=4, block=5, seed=0),
    )


def student_for(data):
    grid, width = data.target_shape(TINY_SPEC)
    return build_student(TINY_SPEC, grid=grid, target_width=width, seed=0)[0]


def unchanged(_, batch):
    return batch


def spoiled_codes(batch):
    """Make a batch's targets not numbers."""
    return batch._replace(codes=[torch.full_like(each, torch.nan) for each in batch.codes])


class Run:
    """A run folder and the student of its latest part."""

    def __init__(self, data, folder, world=None):
        self.data = data
        self.world = world or World()
        self.folder = folder
        self.counts: dict[str, Any] = {}

    def train(self, *, change=unchanged, stop=None, workers=0, **changes):
        """Train in a new trainer, as a new process would; `change` meddles with the batches."""
        loop = {field.name for field in dataclasses.fields(TrainingConfig)}
        config = dataclasses.replace(CONFIG, **{n: changes[n] for n in loop & changes.keys()})
        recipe = dataclasses.replace(RECIPE, **{n: changes[n] for n in changes.keys() - loop})
        self.student = student_for(self.data)
        examples = self.data.examples(self.student, mask_ratio=0.75)

        def batches_from(steps):
            pairs, order = self.data.pairs, self.data.order
            source = batches(
                PairSamples(pairs),
                order,
                ToExamples(examples),
                steps=steps,
                workers=workers,
                world=self.world,
            )
            for step, batch in zip(steps, source, strict=True):
                yield change(step + 1, batch)

        others = self.data.other_grids(self.student)
        task = Pretraining(self.student, self.data.targets(), recipe, others)
        clock = step_clock(self.data.samples, self.data.order)
        trainer = Trainer(self.folder, task, config, clock, world=self.world)
        self.counts = trainer.train(batches_from, stop or StopRequest())
        return self.counts

    def stop_at(self, step, *, rank=0, **changes):
        """Train until a stop signal comes to one process during a step."""
        stop = StopRequest()

        def signalled(current, batch):
            if (current, self.world.rank) == (step, rank):
                stop.signal_name = "SIGUSR1"
            return batch

        with pytest.raises(InterruptedRunError, match=f"SIGUSR1 received.*step {step};"):
            self.train(change=signalled, stop=stop, **changes)

    def break_at(self, step, **changes):
        """Train until something breaks before a step, with no chance to save."""

        def broken(current, batch):
            if current == step:
                raise ZeroDivisionError
            return batch

        with pytest.raises(ZeroDivisionError):
            self.train(change=broken, **changes)

    @property
    def newest(self):
        found = newest_checkpoint(self.folder)
        return None if found is None else found[0]

    @property
    def log(self):
        return [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]

    @property
    def state(self):
        state = json.loads((self.folder / "state.json").read_text())
        return state["state"], state["step"]


def require_same_weights(ours, theirs):
    right = theirs.student.state_dict()
    for name, value in ours.student.state_dict().items():
        assert torch.equal(value, right[name]), name


def require_same_end(ours, theirs):
    require_same_weights(ours, theirs)
    assert [row["step"] for row in ours.log] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in ours.log] == [row["loss"] for row in theirs.log]
    assert [row["lr"] for row in ours.log] == [row["lr"] for row in theirs.log]


def train(world, shards, folder, parts, *, phi_s=False):
    """Train a run part by part in this process.

    Args:
        world: the processes.
        shards: folders of images and targets.
        phi_s: whether targets are standardised.
        folder: of the run.
        parts: what each call of `Run.train` changes; "break_at" and "stop_at" end it early.

    Returns:
        keys: this process's samples, by step of the last part.
    """
    run = Run(open_data(*shards, phi_s=phi_s), folder, world)
    keys = {}

    def noted(step, batch):
        keys[step] = batch.keys
        return batch

    for part in parts:
        changes = dict(part)
        if "break_at" in changes:
            run.break_at(changes.pop("break_at"), **changes)
        elif "stop_at" in changes:
            step, rank = changes.pop("stop_at")
            run.stop_at(step, rank=rank, **changes)
        else:
            keys.clear()
            run.train(change=noted, **changes)
    return keys


def save_checkpoint(run, step, model, optimiser, *, keep):
    return write_checkpoint(run, step, take_snapshot(model, optimiser), keep=keep)


def model_and_optimiser(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3))
    model[0].bias.requires_grad_(False)
    return model, make_optimiser(model, weight_decay=0.05)


def take_steps(model, optimiser, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        set_learning_rate(optimiser, 0.1)
        optimiser.zero_grad()
        model(torch.randn(4, 5, generator=generator)).square().mean().backward()
        optimiser.step()


def saved(run, steps, *, keep=5):
    model, optimiser = model_and_optimiser()
    for step in steps:
        take_steps(model, optimiser, 1, seed=step)
        save_checkpoint(run, step, model, optimiser, keep=keep)
    return model, optimiser


def result(encoder, seed=0, *, weights=None, label=None, stage="probe", **changes):
    """Return a result whose encoder has weights of its own for every spec."""
    content = {"encoder": encoder, "pool": "cls", "seed": seed, "random_init": False}
    content |= changes.pop("content", {})
    inputs = {"encoder": weights or f"weights of {encoder}", "train": "aaaaaaaabbbb"}
    inputs |= changes.pop("inputs", {})
    values: dict[str, Any] = {"metrics": {"knn@20": 50.0 + seed, "linear": 60.0}} | changes
    return Result(
        folder=values.pop("folder", f"{encoder}/{stage}/{seed}"),
        stage=stage,
        encoder=encoder,
        random_init=bool(content["random_init"]),
        seed=seed,
        content=content,
        inputs=inputs,
        label=label,
        **values,
    )
