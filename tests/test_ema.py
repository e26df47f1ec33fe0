"""The moving average follows its formula and starts from the first weights."""

import torch
from torch import nn

from milan_pipeline.ema import MovingAverage


def model():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    layer[0].bias.requires_grad_(False)
    return layer


def test_each_step_moves_the_average_towards_the_weights():
    student = model()
    average = MovingAverage(student, 0.75)
    expected = student[0].weight.detach().clone()
    for step in range(1, 4):
        with torch.no_grad():
            student[0].weight.add_(step)
        average.update()
        expected = 0.75 * expected + 0.25 * student[0].weight.detach()
    found = average.state_dict()
    torch.testing.assert_close(found["0.weight"], expected)
    assert found.keys() == student.state_dict().keys()
    assert torch.equal(found["0.bias"], student[0].bias)


def test_a_saved_average_goes_on_bit_for_bit():
    student = model()
    average, other = MovingAverage(student, 0.9), MovingAverage(student, 0.9)
    nn.init.ones_(student[0].weight)
    average.update()
    other.load_state_dict(average.state_dict())
    nn.init.zeros_(student[0].weight)
    for each in (average, other):
        each.update()
    left, right = average.state_dict(), other.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)
