"""Teachers on a GPU: a batch that is there goes through every kind of tower without a copy."""

from typing import Any

import pytest
import torch

from milan_pipeline.teacher.description import settled_tower
from milan_pipeline.teacher.prior import PriorReader
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.timm_visual import TimmVisual
from tests.support.clip import MAP_TRUNKS, TOKEN_TRUNKS, native, size_of, timm_tower
from tests.support.fake_gpu import GPU, fake_gpu
from tests.support.timm_teachers import AVERAGING_ALONE, FAMILIES, tiny_model


def tower_called(family: str) -> tuple[Any, int]:
    if family in FAMILIES:
        visual = TimmVisual(tiny_model(family))
        return visual, visual.image_size[0]
    return (native(), 32) if family == "native" else (timm_tower(family), size_of(family))


GRID_ON_HOST = ("dinov3", "dinov3-qkv-bias")
"""timm computes the grid of these rotary embeddings on the host: two numbers a patch."""
AVERAGING = ("gap", "gap-mlp", "cls-avg", "relpos-shared", "vitamin")
CASES = [
    *((family, "uniform") for family in MAP_TRUNKS),
    *((family, "rollout") for family in ("native", *AVERAGING)),
    *((family, "auto") for family in ("native", *TOKEN_TRUNKS) if family not in AVERAGING),
    *((family, "uniform" if family in AVERAGING_ALONE else "auto") for family in FAMILIES),
]


@pytest.mark.parametrize(("family", "prior"), CASES)
def test_a_batch_goes_through_a_tower_without_a_copy(family: str, prior: str) -> None:
    visual, size = tower_called(family)
    spec = TeacherSpec(name="x", pretrained="y", prior=prior, precision="fp32")
    tower, settled = settled_tower(visual, spec)
    reader = PriorReader(tower, settled.prior)
    with fake_gpu() as copies, torch.no_grad():
        visual.to(GPU)
        pixels = torch.zeros(2, 3, size, size, device=GPU)
        copies.made.clear()
        with reader.reading():
            targets = tower.features(pixels, layers=settled.layers, space=settled.space)
        prior_BL = reader.read(len(targets), targets.device)
        grid = 8 * prior_BL.shape[1] if family in GRID_ON_HOST else 0
        assert sum(copy.bytes for copy in copies.made) == grid
        assert targets.device == prior_BL.device == GPU
        assert prior_BL.shape == (2, targets.shape[1] - 1)
