"""The losses against formulas spelled out, over the options' whole product."""

import itertools

import pytest
import torch

from benchmarks.plain_milan import plain_loss
from milan_pipeline.errors import ConfigError
from milan_pipeline.models.student import in_grid_order
from milan_pipeline.pretraining.losses import LOSSES, TARGET_NORMS, cosine_loss, make_loss
from tests.support.students import tiny_batch

CHOICES = list(itertools.product(LOSSES, TARGET_NORMS))


def test_the_loss_is_the_mean_over_all_tokens_of_two_minus_two_cosines():
    target = torch.tensor([[[3.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [1.0, 1.0]]])
    pred = torch.tensor([[[1.0, 0.0], [0.0, -5.0]], [[0.0, 9.0], [7.0, 7.0]]])
    torch.testing.assert_close(make_loss()(pred, target), torch.tensor((0 + 4 + 2 + 0) / 4))


def spelled_out(loss, target_norm, pred, target):
    """Token by token, channel by channel."""
    terms = []
    for p, raw in zip(pred.flatten(0, 1).double(), target.flatten(0, 1).double(), strict=True):
        if target_norm == "l2":
            t = raw / raw.square().sum().sqrt()
        elif target_norm in ("none", "phi-s"):  # given as they are learnt
            t = raw
        else:
            t = (raw - raw.mean()) / ((raw - raw.mean()).square().mean() + 1e-5).sqrt()
        if loss == "cosine":
            terms.append(2 - 2 * (p @ t) / (p.norm() * t.norm()))
        elif loss == "mse":
            terms.append((p - t).square().mean())
        else:
            d = (p - t).abs()
            terms.append(torch.where(d < 2, d.square() / 4, d - 1).mean())
    return torch.stack(terms).mean()


@pytest.mark.parametrize(("loss", "target_norm"), CHOICES)
def test_the_losses_equal_their_formulas(loss, target_norm):
    torch.manual_seed(0)
    pred, target = 3 * torch.randn(2, 2, 5, 16)
    found = make_loss(loss, target_norm)(pred, target)
    expected = spelled_out(loss, target_norm, pred, target)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert found.dtype == torch.float32


def test_the_cosine_loss_is_the_squared_distance_of_the_plain_implementation():
    pred, target = torch.randn(2, 2, 5, 16)
    torch.testing.assert_close(cosine_loss(pred, target), plain_loss(pred, target))


@pytest.mark.parametrize(("loss", "target_norm"), CHOICES)
def test_the_order_of_tokens_does_not_matter(loss, target_norm):
    _, kept_BK, masked_BM = tiny_batch()
    pred, target = torch.randn(2, 2, 25, 16)
    in_grid = (in_grid_order(tokens, kept_BK, masked_BM) for tokens in (pred, target))
    of = make_loss(loss, target_norm)
    torch.testing.assert_close(of(pred, target), of(*in_grid))


@pytest.mark.parametrize(("loss", "target_norm"), CHOICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_losses_are_computed_in_float32(loss, target_norm, dtype):
    pred, target = torch.randn(2, 4, 5, 64).to(dtype)
    of = make_loss(loss, target_norm)
    assert of(pred, target).dtype == torch.float32
    torch.testing.assert_close(of(pred, target), of(pred.float(), target.float()))


@pytest.mark.parametrize("target_norm", TARGET_NORMS)
def test_the_length_of_predictions_matters_to_smooth_l1_alone(target_norm):
    pred, target = torch.randn(2, 4, 5, 64)
    of = make_loss("cosine", target_norm)
    torch.testing.assert_close(of(pred, target), of(7 * pred, target))
    of = make_loss("smooth-l1", target_norm)
    assert of(7 * pred, target) > 2 * of(pred, target)


def test_an_unknown_loss_or_norm_is_refused():
    with pytest.raises(ConfigError, match="--loss 'l1' is unknown; choose one of cosine"):
        make_loss("l1")
    with pytest.raises(ConfigError, match="--target-norm 'instance' is unknown; choose one of l2"):
        make_loss("cosine", "instance")
