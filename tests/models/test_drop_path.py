"""Stochastic depth: what is kept is scaled, evaluation is left alone, timm's is replaced."""

from typing import Any

import timm
import torch

from milan_pipeline.models.drop_path import DropPath, share_graphs
from tests.support.fake_gpu import GPU, fake_gpu


def all_of(model: torch.nn.Module) -> list[DropPath]:
    return [module for module in model.modules() if isinstance(module, DropPath)]


def test_a_sample_is_dropped_whole_or_kept_and_scaled() -> None:
    torch.manual_seed(0)
    dropped = DropPath(0.25)(torch.ones(4000, 3, 2))
    kept_B = dropped[:, 0, 0] > 0
    assert torch.equal(dropped, kept_B[:, None, None] / torch.tensor(0.75).expand(4000, 3, 2))
    assert abs(float(kept_B.float().mean()) - 0.75) < 0.03


def test_what_is_not_trained_passes() -> None:
    x = torch.ones(5, 2)
    assert DropPath(0.9).eval()(x) is x
    assert torch.equal(DropPath(0.0)(x), x)
    assert DropPath(0.5)(x.bfloat16()).dtype == torch.bfloat16


def test_timms_is_replaced_in_every_block_and_keeps_its_rate() -> None:
    model: Any = timm.create_model("test_vit", img_size=32, drop_path_rate=0.3)
    theirs = [getattr(block.drop_path2, "drop_prob", 0.0) for block in model.blocks]
    names = model.state_dict().keys()
    share_graphs(model)
    for block, rate in zip(model.blocks, theirs, strict=True):
        assert type(block.drop_path1) is type(block.drop_path2) is DropPath
        assert block.drop_path1.drop_prob == block.drop_path2.drop_prob == rate
    assert model.state_dict().keys() == names
    without = timm.create_model("test_vit", img_size=32)
    share_graphs(without)
    assert not all_of(without)


def test_it_goes_to_the_gpu_with_the_model() -> None:
    model = timm.create_model("test_vit", img_size=32, drop_path_rate=0.3)
    share_graphs(model)
    with fake_gpu() as copies:
        model.to(GPU)
        copies.made.clear()
        assert model(torch.zeros(2, 3, 32, 32, device=GPU)).device == GPU
        assert copies.made == []
        assert {dropped._kept.device for dropped in all_of(model)} == {GPU}
