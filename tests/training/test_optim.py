"""Learning rate and weight decay, against values worked out by hand."""

import math

import pytest
import torch

from milan_pipeline.models.decoder import PromptingDecoder
from milan_pipeline.models.student import Student
from milan_pipeline.models.vit import build_encoder
from milan_pipeline.training.optim import (
    learning_rate,
    make_optimiser,
    scheduled_rate,
    set_learning_rate,
)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 0.0),
        (10, 6e-4),  # a quarter of the warm-up
        (39.5, 24e-4 * 39.5 / 40),
        (40, 24e-4),  # 1.5e-4 * 4096 / 256
        (130, 24e-4 * 0.5 * (1 + math.sqrt(0.5))),  # a quarter of the cosine
        (220, 12e-4),
        (400, 0.0),
        (401, 0.0),
    ],
)
def test_the_published_schedule(epoch, rate):
    found = learning_rate(epoch, base=1.5e-4, batch=4096, warmup_epochs=40, epochs=400)
    assert found == pytest.approx(rate, rel=1e-12, abs=1e-18)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 0.0),
        (2.5, 2e-4),  # half of the warm-up
        (5, 4e-4),  # 1e-4 * 1024 / 256
        (52.5, 1e-6 + (4e-4 - 1e-6) / 2),  # half of the cosine
        (100, 1e-6),
        (101, 1e-6),
    ],
)
def test_the_published_schedule_of_fine_tuning(epoch, rate):
    found = learning_rate(epoch, base=1e-4, batch=1024, warmup_epochs=5, epochs=100, least=1e-6)
    assert found == pytest.approx(rate, rel=1e-12, abs=1e-18)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 0.0), (1, 0.5), (2, 1.0), (4, 0.775), (6, 0.55), (10, 0.1), (11, 0.1)],
)
def test_a_poly_schedule_is_a_straight_line_down(epoch, rate):
    found = scheduled_rate(epoch, shape="poly", peak=1.0, warmup_epochs=2, epochs=10, least=0.1)
    assert found == pytest.approx(rate, rel=1e-12, abs=1e-18)


def test_without_warm_up_the_rate_starts_at_its_peak():
    assert learning_rate(0, base=1e-3, batch=256, warmup_epochs=0, epochs=4) == 1e-3


@pytest.fixture(scope="module")
def student():
    sizes = {"image_size": 16, "patch_size": 8, "width": 16, "depth": 1, "heads": 2}
    encoder = build_encoder("vit_tiny_patch16_224", **sizes)
    return Student(encoder, PromptingDecoder(16, (2, 2), 6, width=8, depth=1, heads=2))


def decay_of(student):
    optimiser = make_optimiser(student, weight_decay=0.05)
    by_id = {
        id(parameter): group["weight_decay"]
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    return {name: by_id.get(id(value)) for name, value in student.named_parameters()}


def test_matrices_and_tokens_are_decayed_biases_and_norms_are_not(student):
    decay = decay_of(student)
    trained = {name for name, value in student.named_parameters() if value.requires_grad}
    assert {name for name, value in decay.items() if value is not None} == trained
    assert decay["encoder.cls_token"] == decay["decoder.mask_token"] == 0.05
    for name in trained - {"encoder.cls_token", "decoder.mask_token"}:
        vector = name.endswith("bias") or "norm" in name
        assert decay[name] == (0.0 if vector else 0.05), name


def test_positions_are_fixed(student):
    decay = decay_of(student)
    positions = [name for name, _ in student.named_parameters() if "pos" in name]
    assert "encoder.pos_embed" in positions
    assert all(decay[name] is None for name in positions)


def test_one_step_is_adamw_with_the_published_betas(student):
    optimiser = make_optimiser(student, weight_decay=0.05)
    set_learning_rate(optimiser, 0.01)
    token = student.encoder.cls_token
    before = token.detach().clone()
    for parameter in student.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    optimiser.step()
    # AdamW's first step: decay, then the gradient over its own size, whatever the betas.
    expected = before * (1 - 0.01 * 0.05) - 0.01 * 2 / (2 + 1e-8)
    torch.testing.assert_close(token.detach(), expected)
    state = optimiser.state[token]
    torch.testing.assert_close(state["exp_avg"], torch.full_like(before, 0.1 * 2))
    torch.testing.assert_close(state["exp_avg_sq"], torch.full_like(before, 0.05 * 4))
