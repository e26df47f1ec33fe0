"""The moving average holds the weights that timm's holds, from the first step on."""

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from milan_pipeline.training.optim import MovingAverage, decay_of


def model():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    layer[0].bias.requires_grad_(False)
    return layer


def walk(student, steps):
    """Have the trained weights wander as training does, and yield each step."""
    draws = torch.Generator().manual_seed(1)
    for step in steps:
        with torch.no_grad():
            for parameter in (student[0].weight, student[1].weight):
                parameter.add_(torch.randn(parameter.shape, generator=draws))
        yield step


def test_over_many_steps_it_holds_the_weights_of_timms():
    student = model()
    ours = MovingAverage(student, 0.98)  # warmed up at step 354
    theirs = ModelEmaV3(student, decay=0.98, use_warmup=True)
    for step in walk(student, range(1, 601)):
        ours.update(step)
        theirs.update(student, step=step)
        if step in (1, 2, 10, 100, 353, 354, 600):
            expected, found = theirs.module.state_dict(), ours.state_dict()
            for name in ("0.weight", "1.weight"):
                torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_nothing_of_the_draw_is_left_after_the_first_step():
    student = model()
    average = MovingAverage(student, 0.9999)
    nn.init.ones_(student[0].weight)
    average.update(1)
    assert torch.equal(average.state_dict()["0.weight"], torch.ones(2, 3))
    assert decay_of(10_000, 0.9999) < 0.998


def test_after_the_warm_up_each_step_moves_it_by_the_decay_that_was_asked_for():
    student = model()
    average = MovingAverage(student, 0.75)
    expected = student[0].weight.detach().clone()
    for step in walk(student, range(8, 12)):  # 1 - 8^(-2/3) is 0.75
        average.update(step)
        expected = 0.75 * expected + 0.25 * student[0].weight.detach()
    found = average.state_dict()
    torch.testing.assert_close(found["0.weight"], expected)
    assert found.keys() == student.state_dict().keys()
    assert torch.equal(found["0.bias"], student[0].bias)


def test_a_saved_average_goes_on_bit_for_bit():
    student = model()
    average, other = MovingAverage(student, 0.9), MovingAverage(student, 0.9)
    nn.init.ones_(student[0].weight)
    average.update(1)
    other.load_state_dict(average.state_dict())
    nn.init.zeros_(student[0].weight)
    for each in (average, other):
        each.update(2)
    left, right = average.state_dict(), other.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)
