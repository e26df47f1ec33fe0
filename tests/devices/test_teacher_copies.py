"""Teachers on a GPU: a batch that is there goes through every kind of tower without a copy."""

from typing import Any

import pytest
import torch

from milan_pipeline.teacher.description import settled_tower
from milan_pipeline.teacher.prior import PriorReader
from milan_pipeline.teacher.spec import TeacherSpec
from tests.support.clip import MAP_TRUNKS, TOKEN_TRUNKS, native, size_of, timm_tower
from tests.support.fake_gpu import GPU, fake_gpu


def tower_called(family: str) -> tuple[Any, int]:
    return (native(), 32) if family == "native" else (timm_tower(family), size_of(family))


AVERAGING = ("gap", "gap-mlp", "cls-avg", "relpos-shared", "vitamin")
CASES = [
    *((family, "uniform") for family in MAP_TRUNKS),
    *((family, "rollout") for family in ("native", *AVERAGING)),
    *((family, "auto") for family in ("native", *TOKEN_TRUNKS) if family not in AVERAGING),
]


@pytest.mark.parametrize(("family", "prior"), CASES)
def test_a_batch_goes_through_a_tower_without_a_copy(family: str, prior: str) -> None:
    visual, size = tower_called(family)
    spec = TeacherSpec(name="x", pretrained="y", prior=prior, precision="fp32")
    tower, kind = settled_tower(visual, spec)
    reader = PriorReader(tower, kind)
    with fake_gpu() as copies, torch.no_grad():
        visual.to(GPU)
        pixels = torch.zeros(2, 3, size, size, device=GPU)
        copies.made.clear()
        with reader.reading():
            targets = tower.features(pixels, layers=spec.layers, space=spec.space)
        prior_BL = reader.read(len(targets), targets.device)
        assert copies.made == []
        assert targets.device == prior_BL.device == GPU
        assert prior_BL.shape == (2, targets.shape[1] - 1)
