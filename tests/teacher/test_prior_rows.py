"""No tensor of batch x tokens x tokens where one row is enough."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from milan_pipeline.teacher.prior import watched
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.clip import native, pixels, timm_tower

SIZE, TOKENS = 48, (36, 37)


class Operations(TorchDispatchMode):
    """Note the operations that run and the shape of every tensor that they return."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.names.add(str(func))
        for item in result if isinstance(result, tuple | list) else [result]:
            if isinstance(item, torch.Tensor):
                self.shapes.add(tuple(item.shape))
        return result

    @property
    def squares(self) -> set[tuple[int, ...]]:
        """Shapes that have a whole attention matrix for each image of a batch of 3."""
        of_images = (shape for shape in self.shapes if len(shape) > 2 and shape[0] % 3 == 0)
        return {shape for shape in of_images if shape[-1] in TOKENS and shape[-1] == shape[-2]}


def operations(visual: Any, prior: str) -> Operations:
    given = Teacher(visual, TeacherSpec(name="x", prior=prior))
    seen = Operations()
    with seen:
        given(pixels(SIZE))
    return seen


@pytest.mark.parametrize("family", ["native", "qk_norm", "coca", "siglip", "eva02", "pe", "relpos"])
def test_everything_else_takes_fused_attention(family: str) -> None:
    coca = {"attentional_pool": True, "attn_pooler_heads": 2, "attn_pooler_queries": 5}
    changes: dict[str, dict[str, Any]] = {"native": {}, "qk_norm": {"qk_norm": True}, "coca": coca}
    tower = (
        native(image_size=SIZE, **changes[family])
        if family in changes
        else timm_tower(family, image_size=SIZE)
    )
    seen = operations(tower, "auto")
    assert not seen.squares
    assert any("scaled_dot_product" in name for name in seen.names)
    assert not any("native_multi_head" in name for name in seen.names)


def test_rollout_needs_them_all() -> None:
    assert operations(native(image_size=SIZE), "rollout").squares


class Masked(nn.Module):
    """Fused attention over tokens of which some are masked."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x_BHNd: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(
            x_BHNd, x_BHNd, x_BHNd, attn_mask=self.mask, scale=0.7
        )


@pytest.mark.parametrize("additive", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_masks_and_scales_are_seen(additive: bool, first: bool) -> None:
    torch.manual_seed(0)
    x_BHNd = torch.randn(2, 3, 5, 4)
    allowed = torch.rand(5, 5) > 0.4
    allowed.fill_diagonal_(True)
    bias = torch.zeros(5, 5).masked_fill(~allowed, -torch.inf)
    attention, seen = Masked(bias if additive else allowed), list[torch.Tensor]()
    with watched(attention, seen.append, first=first):
        attention(x_BHNd)
    expected = (x_BHNd @ x_BHNd.mT * 0.7 + bias).softmax(dim=-1).mean(dim=1)
    torch.testing.assert_close(seen[0], expected[:, :1] if first else expected)
