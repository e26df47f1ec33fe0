"""The loss of a step."""

import torch

from milan_pipeline.pretraining.examples import Batch
from milan_pipeline.pretraining.task import Pretraining, PretrainingConfig
from milan_pipeline.training.meter import named
from tests.support.students import GRID, TARGET_WIDTH, tiny_student

KEPT, MASKED = 6, GRID[0] * GRID[1] - 6
CONFIG = PretrainingConfig(
    batch=2, epochs=1, warmup_epochs=0, base_lr=1e-4, weight_decay=0.05, bf16=False
)


class AsTheyAre:
    """Targets whose codes are the tokens."""

    def __init__(self, *, in_grid_order: bool = False) -> None:
        self.in_grid_order = in_grid_order

    def decode(self, codes_BTC: torch.Tensor, scale_BT: torch.Tensor) -> torch.Tensor:
        del scale_BT
        return codes_BTC


def test_targets_of_whole_images_are_put_into_the_student_s_order() -> None:
    random = torch.manual_seed(0)
    grid_BND = torch.randn(2, 1 + KEPT + MASKED, TARGET_WIDTH, generator=random)
    student = tiny_student(supervise="masked").eval()
    order_BN = torch.rand(2, KEPT + MASKED, generator=random).argsort(dim=1)
    masked_BM = order_BN[:, KEPT:].sort(dim=1).values

    def loss(codes_BTD: torch.Tensor, *, in_grid_order: bool) -> torch.Tensor:
        targets = AsTheyAre(in_grid_order=in_grid_order)
        task = Pretraining(student, {"": targets}, CONFIG)
        data = Batch(
            patches_BKP=torch.full((2, KEPT, 48), 7, dtype=torch.uint8),
            kept_BK=order_BN[:, :KEPT].sort(dim=1).values,
            masked_BM=masked_BM,
            codes=[codes_BTD],
            scales=[torch.zeros(2, 0)],
            keys=["a", "b"],
        )
        return named(task.loss(student, data, slice(0, 2), 1))["loss"]

    wanted_BMD = torch.stack([grid_BND[image, 1 + masked_BM[image]] for image in range(2)])
    assert torch.equal(loss(grid_BND, in_grid_order=True), loss(wanted_BMD, in_grid_order=False))
