"""Validation: in evaluation mode, of the moving average where there is one."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import timm
import torch
from torch import nn

from milan_pipeline.cluster.world import World
from milan_pipeline.data.order import StepClock
from milan_pipeline.training.optim import MovingAverage
from milan_pipeline.training.validation import Validation, evaluating


def test_nothing_is_dropped_while_a_model_is_validated():
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, num_classes=5, drop_path_rate=0.9)
    images = torch.randn(4, 3, 32, 32)
    with evaluating(model):
        assert torch.equal(model(images), model(images))
    assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize("averaged", [True, False])
def test_the_average_is_what_is_validated_and_written(averaged, tmp_path):
    model, scored, written = nn.Linear(1, 1, bias=False), [], {}
    nn.init.zeros_(model.weight)
    average = MovingAverage(model, 0.5) if averaged else None
    nn.init.ones_(model.weight)  # what training ended with

    class Evaluator:
        key = "top1"

        def score(self, _, weights):
            scored.append(float((weights or model.state_dict())["weight"]))
            return SimpleNamespace(per_cent=lambda: {"top1": 50.0})

    validation = Validation(
        folder=tmp_path,
        model=model,
        average=average,
        evaluator=cast(Any, Evaluator()),
        write=lambda name, state: written.update({name: float(state["weight"])}),
        last="finetuned",
        is_due=lambda _: True,
        clock=StepClock((2,)),
        total=2,
        world=World(),
    )
    validation.after_step(1)
    assert validation.conclude(2) == {"top1": 50.0, "best-top1": 50.0}
    weight = 0.0 if averaged else 1.0
    assert scored == [weight] * 2
    assert written == {"best": weight, "finetuned": weight}
