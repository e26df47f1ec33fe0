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

    def decode(self, codes_BTC: torch.Tensor, scale_BT: torch.Tensor) -> torch.Tensor:
        del scale_BT
        return codes_BTC


def test_a_cls_that_only_decodes_the_others_is_not_supervised() -> None:
    random = torch.manual_seed(0)
    tokens_BTD = torch.randn(2, 1 + MASKED, TARGET_WIDTH, generator=random)
    student = tiny_student(supervise="masked").eval()
    task = Pretraining(student, {"": AsTheyAre()}, CONFIG)
    order_BN = torch.rand(2, KEPT + MASKED, generator=random).argsort(dim=1)

    def loss(codes_BTD: torch.Tensor) -> torch.Tensor:
        data = Batch(
            patches_BKP=torch.full((2, KEPT, 48), 7, dtype=torch.uint8),
            kept_BK=order_BN[:, :KEPT].sort(dim=1).values,
            masked_BM=order_BN[:, KEPT:].sort(dim=1).values,
            codes=[codes_BTD],
            scales=[torch.zeros(2, 0)],
            keys=["a", "b"],
        )
        return named(task.loss(student, data, slice(0, 2), 1))["loss"]

    assert torch.equal(loss(tokens_BTD), loss(tokens_BTD[:, 1:]))
