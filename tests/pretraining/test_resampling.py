"""Targets and priors of another grid: resampled by hand, and through a run."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from milan_pipeline.data.order import OrderChoice
from milan_pipeline.data.stream import batches
from milan_pipeline.errors import ConfigError
from milan_pipeline.models.build import build_student
from milan_pipeline.models.student import in_grid_order, in_student_order
from milan_pipeline.pretraining.examples import ToExamples
from milan_pipeline.pretraining.feature_data import open_run_data
from milan_pipeline.pretraining.resampling import resampled_prior, resampled_tokens
from milan_pipeline.pretraining.task import Pretraining
from milan_pipeline.training.meter import PartedLoss
from tests.support.runs import RECIPE
from tests.support.second_teacher import write_second_teacher
from tests.support.students import TINY_SPEC


def by_hand(values_HW, onto):
    """Interpolate along both axes, weights of triangles around each centre written out."""
    for axis, size in enumerate(onto):
        old = values_HW.shape[axis]
        step = old / size
        reach = max(1.0, step)
        centres = (np.arange(size) + 0.5) * step
        weights = np.maximum(0, 1 - np.abs(centres[:, None] - (np.arange(old) + 0.5)) / reach)
        weights /= weights.sum(axis=1, keepdims=True)
        values_HW = np.moveaxis(np.tensordot(weights, values_HW, (1, axis)), 0, axis)
    return values_HW


@pytest.mark.parametrize("onto", [(4, 4), (8, 8), (3, 3), (2, 7), (1, 1)])
def test_targets_are_the_weighted_means_of_near_ones(onto):
    tokens_BND = torch.randn(2, 1 + 4 * 5, 3)
    found = resampled_tokens(tokens_BND, (4, 5), onto)
    assert torch.equal(found[:, 0], tokens_BND[:, 0])
    for sample, image in zip(found, tokens_BND, strict=True):
        expected = by_hand(image[1:].reshape(4, 5, 3).numpy(), onto).reshape(-1, 3)
        np.testing.assert_allclose(sample[1:], expected, atol=1e-5)


def test_the_same_grid_changes_no_bit():
    tokens_BND, prior_L = torch.randn(2, 17, 3), np.random.default_rng(0).random(16, np.float32)
    assert resampled_tokens(tokens_BND, (4, 4), (4, 4)) is tokens_BND
    assert resampled_prior(prior_L, (4, 4), (4, 4)) is prior_L


@pytest.mark.parametrize("onto", [(8, 8), (3, 2)])
def test_a_prior_keeps_its_sum_and_stays_above_zero(onto):
    prior_L = np.random.default_rng(0).random(16, np.float32)
    prior_L[:8] = 0
    found_L = resampled_prior(prior_L, (4, 4), onto)
    assert found_L.shape == (onto[0] * onto[1],)
    assert found_L.sum() == pytest.approx(prior_L.sum(), rel=1e-5)
    assert (found_L > 0).all()
    expected = by_hand(prior_L.reshape(4, 4), onto).flatten()
    np.testing.assert_allclose(found_L / found_L.sum(), expected / expected.sum(), atol=1e-5)


def test_student_order_is_the_reverse_of_grid_order():
    tokens_BNX, places = torch.randn(2, 10, 3), torch.stack([torch.randperm(9) for _ in range(2)])
    kept_BK, masked_BM = places[:, :3], places[:, 3:]
    there = in_student_order(tokens_BNX, kept_BK, masked_BM)
    assert torch.equal(in_grid_order(there, kept_BK, masked_BM), tokens_BNX)


# ---- in a run


@pytest.fixture(scope="module")
def data(image_shards: Path, target_shards: Path, tmp_path_factory: pytest.TempPathFactory):
    """A teacher on 4x4 patches, and one whose 16 patches are said to be 2x8."""
    other = tmp_path_factory.mktemp("other")
    write_second_teacher(target_shards, other, teacher={"grid": [2, 8]})
    return open_run_data(
        str(image_shards),
        {"clip": str(target_shards), "dino": str(other)},
        views=None,
        on_missing="error",
        order=OrderChoice(batch=8, lanes=4, block=5, seed=0),
        prior_from="dino",
        resample=True,
    )


def test_the_student_has_the_grid_that_its_options_say(data):
    assert data.target_shape(TINY_SPEC)[0] == (4, 4)
    finer = dataclasses.replace(TINY_SPEC, image_size=64)
    assert data.target_shape(finer)[0] == (8, 8)
    with pytest.raises(ConfigError, match="targets of a 8x8 grid, or --resample-targets"):
        build_student(finer, grid=(4, 4), target_width=8, seed=0)


@pytest.mark.parametrize("supervise", ["all", "masked"])
def test_a_student_learns_the_resampled_targets(supervise, data):
    spec = dataclasses.replace(TINY_SPEC, supervise=supervise)
    grid, width = data.target_shape(spec)
    student, _ = build_student(spec, grid=grid, target_width=width, seed=0)
    others = data.other_grids(student)
    assert others == {"dino": (2, 8)}
    examples = ToExamples(data.examples(student, mask_ratio=0.75))
    (batch,) = batches(data.samples, data.order, examples, steps=range(1), workers=0)
    predicted: list[torch.Tensor] = []
    student.register_forward_hook(lambda _module, _inputs, output: predicted.append(output))
    task = Pretraining(student, data.targets(), RECIPE, others)
    found = task.loss(student, batch, slice(None), 1)
    assert isinstance(found, PartedLoss)
    tokens = resampled_tokens(batch.codes[1].float(), (2, 8), (4, 4))
    wanted = in_student_order(tokens, batch.kept_BK, batch.masked_BM)[:, -predicted[0].shape[1] :]
    expected = 2 - 2 * torch.cosine_similarity(predicted[0][..., 24:], wanted, dim=-1).mean()
    torch.testing.assert_close(found.parts["dino"], expected.detach())
