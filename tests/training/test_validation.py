"""Validation: in evaluation mode, of the moving average where there is one."""

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest
import timm
import torch
from torch import nn

from milan_pipeline.cluster.world import World
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.data.order import StepClock
from milan_pipeline.errors import InterruptedRunError
from milan_pipeline.provenance.identity import short_fingerprint
from milan_pipeline.training.optim import MovingAverage
from milan_pipeline.training.validation import Validation, evaluating, until_stopped
from tests.support.processes import run_world


def test_nothing_is_dropped_while_a_model_is_validated():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, num_classes=5, drop_path_rate=0.9)
    images = torch.randn(4, 3, 32, 32)
    with evaluating(model):
        assert torch.equal(model(images), model(images))
    assert not torch.equal(model(images), model(images))


class Evaluator:
    """Scores a weight, and notes it."""

    key, columns = "top1", {"top1": "top-1 %"}

    def __init__(self, model, score=50.0):
        self.model, self._score, self.scored = model, score, []

    def score(self, world, stop, weights, *, partial):
        assert partial.begin(torch.zeros(1), None) == 0
        list(until_stopped(iter([0]), stop, world, count=1))
        self.scored.append(float((weights or self.model.state_dict())["weight"]))
        scores = {"per_cent": {"top1": self._score}, "notes": {"of": 3}, "files": {"kept": b"1"}}
        return SimpleNamespace(**{name: lambda each=each: each for name, each in scores.items()})


def validation_of(evaluator, folder, *, written=None, average=None, val="v", every=1):
    written = {} if written is None else written
    return Validation(
        folder=folder,
        model=evaluator.model,
        average=average,
        evaluator=cast(Any, evaluator),
        val=val,
        write=lambda name, state, _: written.update({name: float(state["weight"])}),
        last="finetuned",
        scheduled=lambda step: step % every == 0,
        clock=StepClock((2,)),
        total=3,
        world=World(),
    )


def asked():
    stop = StopRequest()
    stop.signal_name = "SIGTERM"
    return stop


def scored(validation, step, stop=None):
    """Score a step; return what was shown of it."""
    shown = []
    validation.validate(step, stop or StopRequest(), lambda *told: shown.append(told))
    return shown


@pytest.mark.parametrize("averaged", [True, False])
def test_the_average_is_scored_and_both_are_written(averaged, tmp_path):
    model = nn.Linear(1, 1, bias=False)
    written: dict[str, float] = {}
    nn.init.zeros_(model.weight)
    average = MovingAverage(model, 0.5) if averaged else None
    nn.init.ones_(model.weight)  # what training ended with
    evaluator = Evaluator(model)
    validation = validation_of(evaluator, tmp_path, written=written, average=average)
    assert scored(validation, 3) == [(3, {"top1": 50.0})]
    assert validation.conclude(3) == ({"top1": 50.0, "best-top1": 50.0}, {"of": 3})
    weight = 0.0 if averaged else 1.0
    assert evaluator.scored == [weight]
    beside = {"finetuned-unaveraged": 1.0} if averaged else {}
    assert written == {"best": weight, "finetuned": weight} | beside


def test_lost_best_weights_are_written_again_where_they_are_the_last(tmp_path, caplog):
    written: dict[str, float] = {}
    evaluator = Evaluator(nn.Linear(1, 1, bias=False))
    validation = validation_of(evaluator, tmp_path, written=written)
    scored(validation, 2)
    written.clear()
    validation.conclude(2)
    assert written.keys() == {"best", "finetuned"}
    (tmp_path / "best.safetensors").touch()
    written.clear()
    validation.conclude(2)
    assert written.keys() == {"best", "finetuned"}  # its description is lost
    (tmp_path / "best.safetensors").unlink()
    written.clear()
    validation.conclude(3)
    assert written.keys() == {"finetuned"}
    assert "lost best.safetensors, of step 2; restore it, or use finetuned" in caplog.text


def test_a_step_is_scored_once_and_the_last_one_always(tmp_path):
    validation = validation_of(Evaluator(nn.Linear(1, 1, bias=False)), tmp_path, every=2)
    assert [validation.is_due(step) for step in range(6)] == [False, False, True, True, True, True]
    scored(validation, 2)
    assert [validation.is_due(step) for step in range(4)] == [False, False, False, True]


def test_other_images_are_scored_again(tmp_path):
    evaluator = Evaluator(nn.Linear(1, 1, bias=False))
    scored(validation_of(evaluator, tmp_path), 3)
    assert (tmp_path / "kept").read_bytes() == b"1"
    (tmp_path / "best.safetensors").write_bytes(b"the best on other images")
    again = validation_of(evaluator, tmp_path, val="mended")
    assert again.is_due(3)
    scored(again, 3)
    beside = tmp_path / f"best-{short_fingerprint('v')}.safetensors"
    assert beside.read_bytes() == b"the best on other images"


def test_the_last_step_is_scored_again_where_its_files_are_of_other_images(tmp_path):
    """Answers of each image lie beside the scores, and are those of the last evaluation."""
    evaluator = Evaluator(nn.Linear(1, 1, bias=False))
    first, second = (validation_of(evaluator, tmp_path, val=val) for val in ("v", "w"))
    for validation in (first, second):
        scored(validation, 2)
        scored(validation, 3)
    assert (first.is_due(2), first.is_due(3), second.is_due(3)) == (False, True, False)


def test_a_resume_drops_the_scores_of_steps_that_are_scored_again(tmp_path):
    validation = validation_of(Evaluator(nn.Linear(1, 1, bias=False)), tmp_path)
    for step in (2, 3):
        scored(validation, step)
    validation.resume(2)
    assert [row["step"] for row in validation.evaluations.rows()] == [2]


def test_scores_are_shown_before_they_are_kept(tmp_path):
    """Whoever is killed between the two shows them twice, and not never."""
    validation = validation_of(Evaluator(nn.Linear(1, 1, bias=False)), tmp_path)
    with pytest.raises(ZeroDivisionError):
        validation.validate(3, StopRequest(), lambda *_: 1 / 0)
    assert validation.is_due(3)


def test_a_stop_leaves_an_evaluation_and_no_scores(tmp_path):
    validation = validation_of(Evaluator(nn.Linear(1, 1, bias=False)), tmp_path)
    with pytest.raises(InterruptedRunError, match="SIGTERM received; the evaluation was left"):
        scored(validation, 3, asked())
    assert validation.is_due(3)


def stopped_in(world, asked_rank):
    """Have one process of several be asked to stop while all of them score; count the items."""
    stop, seen = StopRequest(), []

    def score():
        items = range(world.rank, 99, world.size)
        for number in until_stopped(iter(items), stop, world, count=len(items)):
            seen.append(number)
            if world.rank == asked_rank and len(seen) == 3:
                stop.signal_name = "SIGUSR1"

    with pytest.raises(InterruptedRunError):
        score()
    return len(seen)


def test_processes_leave_an_evaluation_together_though_one_is_asked():
    assert run_world(2, stopped_in, 1) == [16, 16]


def everything(world, total):
    items = range(world.rank, total, world.size)
    return list(until_stopped(iter(items), StopRequest(), world, count=len(items)))


@pytest.mark.parametrize("total", [0, 1, 32, 33, 34])
def test_processes_with_one_item_less_come_to_their_end(total):
    parts = run_world(2, everything, total)
    assert sorted(itertools.chain(*parts)) == list(range(total))
