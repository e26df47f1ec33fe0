"""Our student against the published method written plainly: grids, ratios, widths, depths."""

from typing import Any

import pytest
import torch

from benchmarks.plain_milan import PlainMilan, plain_loss
from milan_pipeline.models.student import in_grid_order, patchify
from milan_pipeline.pretraining.losses import make_loss
from milan_pipeline.pretraining.masking import kept_count
from milan_pipeline.weights.official import official_name
from tests.support.students import TARGET_WIDTH, gradients, take, tiny_batch, tiny_student

CASES: list[dict[str, Any]] = [
    {"grid": (4, 6), "ratio": 0.75},
    {"grid": (6, 4), "ratio": 0.5, "width": 32, "heads": 4},
    {"grid": (4, 4), "ratio": 0.9, "depth": 3},
    {"grid": (2, 7), "ratio": 0.3, "width": 16, "depth": 1},
    {"grid": (14, 14), "ratio": 0.75, "width": 48, "heads": 3},
]


def plain_of(student, grid, depth, heads, width):
    """Build the plain student with our weights, under official names."""
    plain = PlainMilan(
        image_size=(4 * grid[0], 4 * grid[1]),
        patch_size=4,
        target_width=TARGET_WIDTH,
        width=width,
        depth=depth,
        heads=heads,
        decoder_width=8,
        decoder_depth=2,
        decoder_heads=2,
    )
    state = {official_name(name): value for name, value in student.state_dict().items()}
    plain.load_state_dict(state, strict=True)
    return plain


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_predictions_and_gradients_are_those_of_the_plain_method(case):
    case = dict(case)
    grid, ratio = case.pop("grid"), case.pop("ratio")
    sizes = {"width": 24, "depth": 2, "heads": 2} | case
    student = tiny_student(grid=grid, **sizes)
    plain = plain_of(student, grid, **sizes)
    kept = kept_count(grid[0] * grid[1], ratio)
    images, kept_BK, masked_BM = tiny_batch(kept, grid, batch=3)
    target_BND = torch.randn(3, 1 + grid[0] * grid[1], TARGET_WIDTH)

    theirs = plain(images, kept_BK, masked_BM)
    their_loss = plain_loss(theirs, target_BND)
    their_loss.backward()

    places_BN = torch.cat([torch.zeros(3, 1, dtype=torch.int64), kept_BK + 1, masked_BM + 1], dim=1)
    ours = student(take(patchify(images, 4), kept_BK), kept_BK, masked_BM)
    loss = make_loss()(ours, take(target_BND, places_BN))
    loss.backward()

    assert loss.item() == pytest.approx(their_loss.item(), rel=1e-5)
    require_close(in_grid_order(ours, kept_BK, masked_BM), theirs)
    expected = gradients(plain)
    found = {official_name(name): gradient for name, gradient in gradients(student).items()}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        require_close(gradient, expected[name])


def require_close(ours, theirs):
    """Require a difference of at most 1e-5 of the largest value."""
    allowed = 1e-5 * float(theirs.detach().abs().max())
    torch.testing.assert_close(ours, theirs, atol=allowed, rtol=0)


def test_the_plain_student_draws_its_weights_as_published():
    torch.manual_seed(0)
    plain = PlainMilan(
        image_size=(16, 24), patch_size=4, target_width=12, width=64, depth=1, heads=2,
        decoder_width=64, decoder_depth=1, decoder_heads=2,
    )  # fmt: skip
    for name, weight in plain.named_parameters():
        assert weight.requires_grad == (not name.endswith("pos_embed"))
        if name.endswith("token"):
            assert 0.012 < weight.std() < 0.028
        elif weight.ndim == 2:
            bound = (6 / sum(weight.shape)) ** 0.5
            assert 0.98 * bound < weight.abs().max() <= bound
